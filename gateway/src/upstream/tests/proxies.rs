//! Proxies on the way: Debian's tinyproxy (HTTP CONNECT) and microsocks (SOCKS5), Mosquitto behind.

use settings::Secret;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_through_an_http_proxy_that_wants_a_login() {
    let plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    let proxy = tinyproxy(&plant, &format!("ConnectPort {}\n", broker.port)).await;
    passes_with_the_right_login_only(&plant, &broker, &proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_through_a_socks_proxy_that_wants_a_login() {
    let plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    let proxy = microsocks(&["-u", "gw", "-P", "secret"]).await;
    passes_with_the_right_login_only(&plant, &broker, &proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_resolves_the_upstreams_name() {
    let plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    for proxy in [tinyproxy(&plant, "").await, microsocks(&[]).await] {
        let url = format!("mqtts://no-such-host.invalid:{}", broker.port);
        let cause = plant
            .cause(&broker, |config| {
                config.url = url.into();
                config.proxy = Some(proxy.url.clone());
                with_login(&plant, config, "secret");
            })
            .await;
        // Our own resolver would have said that it cannot resolve it.
        let Cause::Unreachable(why) = &cause else {
            panic!("{cause:?}");
        };
        assert!(why.starts_with("from proxy "), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_is_told_from_one_that_is_away_and_an_upstream_that_is() {
    let plant = Plant::new();
    let mut broker = plant.broker(MUTUAL).await;
    let refusing = tinyproxy(&plant, "ConnectPort 1\n").await;
    let through = |proxy: &Proxied| {
        let url = proxy.url.clone();
        |config: &mut Upstream| {
            config.proxy = Some(url);
            with_login(&plant, config, "secret");
        }
    };
    let refused = plant.cause(&broker, through(&refusing)).await;
    assert!(matches!(refused, Cause::Proxy(_)), "{refused:?}");
    let open = [tinyproxy(&plant, "").await, microsocks(&[]).await];
    broker.stop();
    for mut proxy in open {
        let gone = plant.cause(&broker, through(&proxy)).await;
        assert!(
            matches!(&gone, Cause::Unreachable(why) if why.starts_with("from proxy ")),
            "{gone:?}"
        );
        proxy.stop();
        let gone = plant.cause(&broker, through(&proxy)).await;
        assert!(
            matches!(&gone, Cause::Unreachable(why) if why.starts_with("proxy ")),
            "{gone:?}"
        );
    }
}

async fn passes_with_the_right_login_only(plant: &Plant, broker: &Mosquitto, proxy: &Proxied) {
    let observer = plant.observe(broker, "gw-1/#").await;
    let link = plant.link(broker, |config| {
        config.proxy = Some(proxy.url.clone());
        with_login(plant, config, "secret");
    });
    plant.keep(0..60).await;
    wait_until("the buffer is empty", || plant.buffer.status().rows == 0).await;
    observer.has_all(60).await;
    link.stop().await;
    let cause = plant
        .cause(broker, |config| {
            config.proxy = Some(proxy.url.clone());
            with_login(plant, config, "guessed");
        })
        .await;
    assert!(matches!(cause, Cause::Proxy(_)), "{cause:?}");
    assert!(!cause.to_string().contains("guessed"), "{cause}");
    let without = plant
        .cause(broker, |config| config.proxy = Some(proxy.url.clone()))
        .await;
    assert!(without.to_string().contains("proxy_user"), "{without}");
}

fn with_login(plant: &Plant, config: &mut Upstream, password: &str) {
    let file = plant.path(&format!("proxy-{password}"));
    fs::write(&file, password).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    config.proxy_user = Some("gw".to_owned());
    config.proxy_password = Some(Secret::File(file));
}

struct Proxied {
    url: String,
    child: Child,
}

impl Proxied {
    fn stop(&mut self) {
        let _gone = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Drop for Proxied {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn tinyproxy(plant: &Plant, options: &str) -> Proxied {
    let port = free_port();
    let config = plant.path(&format!("tinyproxy-{port}.conf"));
    fs::write(
        &config,
        format!("Port {port}\nListen 127.0.0.1\nTimeout 600\nBasicAuth gw secret\n{options}"),
    )
    .unwrap();
    let mut command = Command::new("tinyproxy");
    command.arg("-d").arg("-c").arg(config);
    start_proxy(command, "http", port).await
}

async fn microsocks(arguments: &[&str]) -> Proxied {
    let port = free_port();
    let mut command = Command::new("microsocks");
    command.args(["-i", "127.0.0.1", "-p", &port.to_string()]);
    command.args(arguments);
    start_proxy(command, "socks5", port).await
}

async fn start_proxy(mut command: Command, scheme: &str, port: u16) -> Proxied {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = command
        .spawn()
        .expect("Debian's tinyproxy and microsocks are installed");
    let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    wait_until("the proxy listens", listens).await;
    Proxied {
        url: format!("{scheme}://127.0.0.1:{port}"),
        child,
    }
}
