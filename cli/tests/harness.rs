//! A cluster of real processes on this machine, and the clients that people use.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The binary under test.
pub(crate) const MERIDIAN: &str = env!("CARGO_BIN_EXE_meridian");
/// The demo's regions, which are also these tests'.
pub(crate) const REGIONS: [&str; 3] = ["us-east", "eu-west", "ap-south"];
/// Round trips between them, as `--latency-file` takes them.
pub(crate) const REALISTIC: &str =
    "us-east eu-west 68\nus-east ap-south 190\neu-west ap-south 122\n";
/// A cluster that is not ready by then will not be.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A node that was asked to stop has stopped by then.
const STOP_WITHIN: Duration = Duration::from_secs(20);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Held by a test as long as it runs processes.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// How long a load lasts, in seconds.
pub(crate) fn load_seconds() -> u64 {
    std::env::var("MERIDIAN_TEST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

#[allow(clippy::disallowed_methods)] // These tests live in real time.
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods)] // These tests live in real time.
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Looks every 50 ms until `reached` or `within` is over; how long it took, if it was reached.
pub(crate) fn wait_until(within: Duration, mut reached: impl FnMut() -> bool) -> Option<Duration> {
    let start = now();
    loop {
        if reached() {
            return Some(start.elapsed());
        }
        if start.elapsed() > within {
            return None;
        }
        pause(Duration::from_millis(50));
    }
}

/// Ports that nobody listens on now.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// Addresses of one node.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) sql: u16,
    pub(crate) rpc: u16,
    pub(crate) http: u16,
}

impl Ports {
    /// For a process that is started now.
    pub(crate) fn free() -> Ports {
        let free = free_ports(3);
        Ports { sql: free[0], rpc: free[1], http: free[2] }
    }
}

/// Three nodes, one per region. Killed when dropped.
pub(crate) struct Cluster {
    pub(crate) dir: TempDir,
    pub(crate) ports: Vec<Ports>,
    children: Vec<Option<Child>>,
}

impl Cluster {
    /// Starts one with injected latencies (a latency file's text) and waits until every node serves.
    pub(crate) fn start(latencies: &'static str) -> Cluster {
        let free = free_ports(REGIONS.len() * 3);
        let ports: Vec<Ports> = free
            .chunks(3)
            .map(|chunk| Ports { sql: chunk[0], rpc: chunk[1], http: chunk[2] })
            .collect();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("latency.txt"), latencies).unwrap();
        let children = REGIONS.iter().map(|_| None).collect();
        let mut cluster = Cluster { dir, ports, children };
        // One after the other, so that node ids follow the places.
        for place in 0..REGIONS.len() {
            cluster.start_node(place);
            let identity = cluster.data(place).join("MERIDIAN");
            let admitted =
                || fs::read_to_string(&identity).is_ok_and(|text| text.contains("\nnode "));
            assert!(
                wait_until(READY_WITHIN, admitted).is_some(),
                "node {place} was not admitted: {}",
                cluster.log(place)
            );
        }
        cluster.wait_ready();
        cluster
    }

    /// Starts a node that does not run.
    pub(crate) fn start_node(&mut self, place: usize) {
        assert!(self.children[place].is_none(), "it runs");
        let log = File::options().create(true).append(true).open(self.log_path(place)).unwrap();
        let child = Command::new(MERIDIAN)
            .args(self.start_arguments(place, &self.data(place), self.ports[place]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.children[place] = Some(child);
    }

    /// `start ..` as a node of this cluster, in a place's region.
    pub(crate) fn start_arguments(&self, place: usize, data: &Path, ports: Ports) -> Vec<String> {
        let join: Vec<String> =
            self.ports.iter().map(|ports| format!("127.0.0.1:{}", ports.rpc)).collect();
        // The first node of a new cluster founds it alone.
        let is_new = !self.data(0).join("MERIDIAN").exists();
        let join = if is_new { join[0].clone() } else { join.join(",") };
        let address = |port: u16| format!("127.0.0.1:{port}");
        let options = [
            ("--data", data.display().to_string()),
            ("--locality", format!("region={}", REGIONS[place])),
            ("--sql-addr", address(ports.sql)),
            ("--rpc-addr", address(ports.rpc)),
            ("--http-addr", address(ports.http)),
            ("--join", join),
            ("--latency-file", self.dir.path().join("latency.txt").display().to_string()),
        ];
        let mut arguments = vec!["start".to_string(), "--allow-chaos".to_string()];
        for (option, value) in options {
            arguments.extend([option.to_string(), value]);
        }
        arguments
    }

    /// Sends a signal to a node.
    pub(crate) fn signal(&self, place: usize, signal: &str) {
        send_signal(self.children[place].as_ref().expect("it runs"), signal);
    }

    /// Waits for a node to end by itself.
    pub(crate) fn wait_end(
        &mut self,
        place: usize,
        within: Duration,
    ) -> Option<std::process::ExitStatus> {
        let status = wait_for_exit(self.children[place].as_mut().expect("it runs"), within);
        if status.is_some() {
            self.children[place] = None;
        }
        status
    }

    /// A node's memory in use.
    pub(crate) fn memory_mib(&self, place: usize) -> u64 {
        let id = self.children[place].as_ref().expect("it runs").id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// Waits until every running node serves, and the ranges that it leads have all their voters.
    pub(crate) fn wait_ready(&self) {
        for (place, ports) in self.ports.iter().enumerate() {
            if self.children[place].is_some() {
                assert!(
                    wait_until(READY_WITHIN, || is_ready(ports.http, Some(REGIONS.len())))
                        .is_some(),
                    "node {place} is not ready: {}",
                    self.log(place)
                );
            }
        }
    }

    /// Ends a node as `kill -9` does.
    pub(crate) fn kill(&mut self, place: usize) {
        let mut child = self.children[place].take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks a node to stop; it must, and must say that all is well.
    pub(crate) fn terminate(&mut self, place: usize, signal: &str) {
        let mut child = self.children[place].take().expect("it runs");
        send_signal(&child, signal);
        let status = wait_for_exit(&mut child, STOP_WITHIN);
        assert!(
            status.is_some_and(|status| status.success()),
            "{signal}: {status:?}: {}",
            self.log(place)
        );
    }

    /// psql on a node's port; what it printed, trimmed. The error is what it said.
    pub(crate) fn sql(&self, place: usize, statement: &str) -> Result<String, String> {
        psql(self.ports[place].sql, statement)
    }

    /// The URL of all nodes for our own driver.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> =
            self.ports.iter().map(|ports| format!("127.0.0.1:{}", ports.rpc)).collect();
        format!("meridian://root@{}/meridian", hosts.join(","))
    }

    /// `meridian workload ..` against all nodes, in the background.
    pub(crate) fn workload(&self, arguments: &[&str]) -> Running {
        let child = Command::new(MERIDIAN)
            .arg("workload")
            .args(arguments)
            .args(["--url", &self.url()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running(child)
    }

    /// A node's data directory.
    pub(crate) fn data(&self, place: usize) -> PathBuf {
        self.dir.path().join(format!("n{}", place + 1))
    }

    fn log_path(&self, place: usize) -> PathBuf {
        self.dir.path().join(format!("n{}.log", place + 1))
    }

    /// The last lines of a node's log.
    pub(crate) fn log(&self, place: usize) -> String {
        let text = fs::read_to_string(self.log_path(place)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A program that runs beside the test. Killed when dropped.
pub(crate) struct Running(Child);

impl Running {
    /// Waits for its end; what it printed, or what it complained of.
    pub(crate) fn finish(mut self) -> Result<String, String> {
        let (mut out, mut err) = (String::new(), String::new());
        self.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let status = self.0.wait().unwrap();
        if status.success() { Ok(out) } else { Err(format!("{status}\n{out}\n{err}")) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// psql on a port; what it printed, trimmed. The error is what it said.
pub(crate) fn psql(port: u16, statement: &str) -> Result<String, String> {
    let output = Command::new("psql")
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "root"])
        .args(["-p", &port.to_string(), "-c", statement, "meridian"])
        .env("PGCONNECT_TIMEOUT", "10")
        .stdin(Stdio::null())
        .output()
        .expect("psql is installed (scripts/setup.sh)");
    text_of(output)
}

/// What a program printed, or what it complained of.
pub(crate) fn text_of(output: Output) -> Result<String, String> {
    let out = String::from_utf8_lossy(&output.stdout).trim().to_string();
    let err = String::from_utf8_lossy(&output.stderr).trim().to_string();
    if output.status.success() { Ok(out) } else { Err(format!("{err}\n{out}").trim().to_string()) }
}

/// Whether `/ready` answers 200; `among`: and as far as the node knows a cluster of so many would bear the loss of one.
pub(crate) fn is_ready(http: u16, among: Option<usize>) -> bool {
    let wanted = among.map_or_else(String::new, |nodes| format!("?nodes={nodes}"));
    let ask = || -> std::io::Result<bool> {
        let address = SocketAddr::from(([127, 0, 0, 1], http));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(format!("GET /ready{wanted} HTTP/1.0\r\n\r\n").as_bytes())?;
        let mut answer = [0_u8; 15];
        stream.read_exact(&mut answer)?;
        Ok(answer.ends_with(b" 200 OK"))
    };
    ask().unwrap_or(false)
}

/// `kill -SIGNAL`.
pub(crate) fn send_signal(child: &Child, signal: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{signal}"), &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success(), "kill -{signal}");
}

/// How it ended, if it ended in time.
pub(crate) fn wait_for_exit(
    child: &mut Child,
    within: Duration,
) -> Option<std::process::ExitStatus> {
    let mut status = None;
    wait_until(within, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status
}

/// `meridian ARGUMENTS`, to its end; exit code and everything it said.
pub(crate) fn meridian(arguments: &[&str], dir: &Path) -> (Option<i32>, String) {
    meridian_within(STOP_WITHIN, arguments, dir)
}

/// The same, with as much time as is given.
pub(crate) fn meridian_within(
    within: Duration,
    arguments: &[&str],
    dir: &Path,
) -> (Option<i32>, String) {
    let mut child = Command::new(MERIDIAN)
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = wait_for_exit(&mut child, within);
    if status.is_none() {
        let _ = child.kill();
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (status.and_then(|status| status.code()), said)
}
