/* A Modbus TCP device for measurements, by libmodbus: bench_device PORT.
 *
 * Any number of connections, any unit identifier, 2000 holding registers; each request adds one to
 * register 0. Each line on standard input is answered with what was served since the start:
 * {"requests": N, "registers": N}. Ends with its standard input. */

#include <modbus.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { REGISTERS = 2000, PLACES = 64, STDIN = 0, LISTENER = 1, FIRST = 2, COUNT_AT = 10 };

static unsigned long long requests, registers;

static void serve(modbus_t *context, modbus_mapping_t *map, struct pollfd *client)
{
	uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
	int length;

	modbus_set_socket(context, client->fd);
	length = modbus_receive(context, query);
	if (length > 0) {
		map->tab_registers[0]++;
		requests++;
		registers += query[COUNT_AT] << 8 | query[COUNT_AT + 1];
		modbus_reply(context, query, length, map);
	} else if (length < 0) {
		close(client->fd);
		client->fd = -1;
	}
}

static void welcome(modbus_t *context, struct pollfd *places, int *listener)
{
	int client = modbus_tcp_accept(context, listener);

	for (int i = FIRST; client >= 0 && i < PLACES; i++) {
		if (places[i].fd < 0) {
			places[i].fd = client;
			return;
		}
	}
	if (client >= 0)
		close(client);
}

/* Whether somebody still asks. */
static int report(void)
{
	char asked[64];

	if (read(STDIN, asked, sizeof asked) <= 0)
		return 0;
	printf("{\"requests\": %llu, \"registers\": %llu}\n", requests, registers);
	return !fflush(stdout);
}

int main(int argc, char **argv)
{
	modbus_t *context = argc == 2 ? modbus_new_tcp("127.0.0.1", atoi(argv[1])) : NULL;
	modbus_mapping_t *map = modbus_mapping_new(0, 0, REGISTERS, 0);
	int listener = context ? modbus_tcp_listen(context, PLACES) : -1;
	struct pollfd places[PLACES];

	if (!map || listener < 0) {
		fprintf(stderr, "usage: bench_device PORT, which must be free\n");
		return 2;
	}
	for (int i = 0; i < PLACES; i++)
		places[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
	places[STDIN].fd = STDIN;
	places[LISTENER].fd = listener;
	while (poll(places, PLACES, -1) > 0) {
		if (places[STDIN].revents && !report())
			return 0;
		if (places[LISTENER].revents)
			welcome(context, places, &listener);
		for (int i = FIRST; i < PLACES; i++)
			if (places[i].fd >= 0 && places[i].revents)
				serve(context, map, &places[i]);
	}
	return 1;
}
