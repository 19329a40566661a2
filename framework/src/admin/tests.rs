use super::*;
use crate::{memory::MemoryPool, status::PipelineStatus, testing::ScriptedLog};
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Mutex,
};

fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

async fn get(address: SocketAddr, method: &'static str, path: &'static str) -> String {
    actix_rt::task::spawn_blocking(move || ask(address, method, path)).await.unwrap()
}

#[actix_rt::test]
async fn health_and_status_are_told_as_the_sources_tell_them() {
    let reasons = Arc::new(Mutex::new(vec!["no broker answers; check bootstrap_servers".to_owned()]));
    let told = reasons.clone();
    let sources = AdminSources {
        metrics: Arc::new(|| "partita_ready 1\n".into()),
        not_ready: Arc::new(move || told.lock().unwrap().clone()),
        status: Arc::new(|| serde_json::json!({"role": "all"})),
        partitions: Arc::new(|| serde_json::json!([{"partition": 3}])),
        operations: Operations {
            log: Arc::new(ScriptedLog::new(2)),
            status: Arc::new(PipelineStatus::new(2)),
            memory: MemoryPool::new("decode", 1 << 20),
            max_task: 1 << 20,
        },
        token: Some("a token".into()),
    };
    let admin = start(SocketAddr::from(([127, 0, 0, 1], 0)), sources).unwrap();
    let at = admin.address();

    let away = get(at, "GET", "/readyz").await;
    assert!(away.starts_with("HTTP/1.1 503") && away.contains("application/problem+json"), "{away}");
    assert!(
        away.contains("\"reasons\":[\"no broker answers; check bootstrap_servers\"]")
            && away.contains("no broker answers"),
        "{away}"
    );
    assert!(get(at, "GET", "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(get(at, "GET", "/metrics").await.ends_with("partita_ready 1\n"));
    assert!(get(at, "GET", "/admin/v1/status").await.ends_with("{\"role\":\"all\"}"));
    assert!(get(at, "GET", "/admin/v1/partitions").await.ends_with("[{\"partition\":3}]"));

    reasons.lock().unwrap().clear();
    assert!(get(at, "GET", "/readyz").await.starts_with("HTTP/1.1 200"));

    assert!(get(at, "GET", "/nothing").await.starts_with("HTTP/1.1 404"));
    let post = get(at, "POST", "/readyz").await;
    assert!(post.starts_with("HTTP/1.1 405") && post.to_lowercase().contains("allow: get"), "{post}");

    assert!(
        get(at, "GET", "/admin/v1/parked").await.ends_with("{\"next\":null,\"parked\":[],\"unread\":[]}")
    );
    for (path, status) in [
        ("/admin/v1/parked?partition=1", "409"),
        ("/admin/v1/parked?partition=2", "404"),
        ("/admin/v1/parked?limit=0", "400"),
        ("/admin/v1/parked?lim=1", "400"),
        ("/admin/v1/parked/1-7", "409"),
        ("/admin/v1/parked/seven", "400"),
        ("/admin/v1/parked/1-7/payload", "401"),
        ("/admin/v1/parked/redrive", "405"),
    ] {
        let answer = get(at, "GET", path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        assert!(answer.contains("\"code\""), "{path}: {answer}");
    }
    let unauthorized = get(at, "POST", "/admin/v1/parked/drop").await;
    assert!(unauthorized.starts_with("HTTP/1.1 401") && unauthorized.contains("Bearer"), "{unauthorized}");
    admin.stop().await;
}
