//! sqlx: the line of docs/clients.md is a URL.

use std::time::Duration;

use sqlx::{Connection, PgPool};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let url = std::env::args().nth(1).expect("a URL");
    let variable = |name: &str| std::env::var(name).expect("a variable");
    let times: u64 = variable("TIMES").parse().expect("a number");
    let query = variable("QUERY");
    // One pool, as programs have it, made anew until it has connected.
    let mut pool = None;
    for _ in 0..times {
        match connect(&mut pool, &url, &query).await {
            Ok(issuer) => println!("sqlx ok {issuer}"),
            Err(error) => {
                let words = error.to_string();
                let words: Vec<&str> = words.split_whitespace().collect();
                println!("sqlx failed {}", words.join(" "));
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The connection is taken out of the pool, so that the next one is new.
async fn connect(
    known: &mut Option<PgPool>,
    url: &str,
    query: &str,
) -> Result<String, sqlx::Error> {
    let pool = match known.take() {
        Some(pool) => pool,
        None => PgPool::connect(url).await?,
    };
    let acquired = pool.acquire().await;
    *known = Some(pool);
    let mut connection = acquired?.detach();
    let issuer = sqlx::query_scalar(query).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(issuer)
}
