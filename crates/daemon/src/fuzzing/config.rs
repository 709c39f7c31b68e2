//! `holdfastd.toml`: what is wrong with it is said in one line.

use crate::config::{Config, PoolDriver};

/// Reads one file's text.
pub fn read(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Config::read(text) {
        Ok(config) => {
            assert!(config.pool.path().is_absolute() && config.replication.sends >= 2);
            assert!(config.pool.name.is_none() || config.pool.driver == PoolDriver::Xfs);
        }
        Err(line) => assert!(!line.contains('\n'), "{line}"),
    }
}

/// The least, and everything.
pub fn seeds() -> Vec<Vec<u8>> {
    let least = r#"name = "n1"
advertise = "10.0.0.1:7443"
[network]
underlay = "10.0.0.1"
"#;
    let full = r#"name = "n1"
data_dir = "/d"
socket = "/s"
listen = "0.0.0.0:7443"
advertise = "n1:7443"
metrics = "[::]:7480"
cgroup_root = "a/b"
guardian = { socket = "/g", binary = "/h", link_group = 72 }
[pool]
driver = "xfs"
name = "fast"
path = "/p"
size = "4GiB"
scrub_rate = "8MiB"
scrub_every_s = 60
trim_every_s = 0
when_full = "error"
[replication]
rate = "100MiB"
job_rate = "40MiB"
sends = 4
receives = 8
[consensus]
heartbeat_ms = 250
[network]
underlay = "10.0.0.1"
overlay_gateways = ["10.0.0.2"]
vxlan_id = 77
port = 7789
[lxc]
path = "/l"
"#;
    [least, full].map(|text| text.as_bytes().to_vec()).to_vec()
}

#[cfg(test)]
mod tests {
    #[test]
    fn spoiled_texts_are_a_configuration_or_refused() {
        holdfast_fuzz::spoiled(&super::seeds(), 20_000, super::read);
    }
}
