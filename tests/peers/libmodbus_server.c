/* A Modbus server by libmodbus: libmodbus_server rtu PORT BAUD | tcp PORT_NUMBER, unit 1.
 *
 * Each table has 200 elements; input registers and holding registers hold 1000 + address, discrete
 * inputs and coils are set at odd addresses. What is written stays. Prints `{"event": "ready"}`. */

#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ELEMENTS = 200, UNIT = 1 };

static modbus_mapping_t *registers(void)
{
	modbus_mapping_t *map = modbus_mapping_new(ELEMENTS, ELEMENTS, ELEMENTS, ELEMENTS);

	if (!map)
		return NULL;
	for (int address = 0; address < ELEMENTS; address++) {
		map->tab_bits[address] = address % 2;
		map->tab_input_bits[address] = address % 2;
		map->tab_registers[address] = 1000 + address;
		map->tab_input_registers[address] = 1000 + address;
	}
	return map;
}

/* Answers requests until the client is gone. */
static void serve(modbus_t *context, modbus_mapping_t *map, int forever)
{
	uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];

	for (;;) {
		int length = modbus_receive(context, query);

		if (length > 0)
			modbus_reply(context, query, length, map);
		else if (length < 0 && !forever)
			return;
		else if (length < 0)
			usleep(10000); /* nobody has the far end open */
	}
}

static int fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, modbus_strerror(errno));
	return 1;
}

int main(int argc, char **argv)
{
	int is_rtu = argc == 4 && !strcmp(argv[1], "rtu");
	modbus_mapping_t *map = registers();
	modbus_t *context;
	int listener;

	if (!is_rtu && !(argc == 3 && !strcmp(argv[1], "tcp"))) {
		fprintf(stderr, "usage: libmodbus_server rtu PORT BAUD | tcp PORT_NUMBER\n");
		return 2;
	}
	context = is_rtu ? modbus_new_rtu(argv[2], atoi(argv[3]), 'E', 8, 1)
			 : modbus_new_tcp("127.0.0.1", atoi(argv[2]));
	if (!context || !map || modbus_set_slave(context, UNIT) < 0)
		return fail("no server");
	if (is_rtu) {
		if (modbus_connect(context) < 0)
			return fail(argv[2]);
		puts("{\"event\": \"ready\"}");
		fflush(stdout);
		serve(context, map, 1);
	}
	listener = modbus_tcp_listen(context, 1);
	if (listener < 0)
		return fail("cannot listen");
	puts("{\"event\": \"ready\"}");
	fflush(stdout);
	while (modbus_tcp_accept(context, &listener) >= 0) {
		serve(context, map, 0);
		modbus_close(context);
	}
	return fail("cannot accept");
}
