#!/usr/bin/env python3
"""Clients of a database under operation, and what they saw.

    traffic.py run                  a client that opens new connections, 20 a second, and a writer that keeps one
    traffic.py mode plain|either|tls
    traffic.py now                  the time, as the report takes it
    traffic.py report FROM TO       what happened in between, as JSON
    traffic.py wire                 what the primary shows to whoever asks for TLS

Modes are how libpq dials: `plain` by password without TLS; `tls` with verify-full and a client certificate, trusting the
ConfigMap NAME-ca; `either` as a client does that is to live through the change from one to the other: prefer, with all it has.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HOST = os.environ.get("PGREKEY_DEMO_HOST", "ha-postgres")
MODE, CLIENT, WRITER, COPIES = "/tmp/mode", "/tmp/client.log", "/tmp/writer.log", "/tmp/copies"
# What a server or libpq says when TLS or the login is what failed. All else is a primary that cannot be reached, or that was
# stopped while it answered.
HANDSHAKE = re.compile(r"SSL|TLS|certificate|pg_hba|authentication failed", re.I)
CUT_OFF = re.compile(r"SSL SYSCALL error: EOF|SSL connection has been closed|Connection reset")


def mode():
    try:
        with open(MODE) as file:
            return file.read().strip()
    except FileNotFoundError:
        return "plain"


def text(path):
    with open(path) as file:
        return file.read().strip()


def copied(volume):
    """One side of a volume. The kubelet swaps a link when it changes, and deletes the other side, also under somebody who reads."""
    while True:
        source = os.path.realpath(f"{volume}/..data")
        target = COPIES + source
        if os.path.exists(target):
            return target
        os.makedirs(os.path.dirname(target), exist_ok=True)
        made = tempfile.mkdtemp(dir=os.path.dirname(target))
        try:
            for name in os.listdir(source):
                # libpq takes no key that others may read.
                shutil.copyfile(f"{source}/{name}", f"{made}/{name}")
                os.chmod(f"{made}/{name}", 0o600)
            os.rename(made, target)
        except FileNotFoundError:
            if not os.path.exists(f"{volume}/..data"):
                return volume
        except OSError:
            # The other thread was faster.
            if not os.path.exists(target):
                raise


def parameters():
    """How to dial now."""
    dial = {"host": HOST, "dbname": "postgres", "user": text("/auth/username"), "password": text("/auth/password"),
            "connect_timeout": 3, "tcp_user_timeout": 3000, "application_name": "demo"}
    if mode() == "plain":
        return dial | {"sslmode": "disable"}
    ca, client = copied("/ca"), copied("/client")
    return dial | {"sslmode": "verify-full" if mode() == "tls" else "prefer", "sslrootcert": f"{ca}/ca.crt",
                   "sslcert": f"{client}/tls.crt", "sslkey": f"{client}/tls.key"}


def note(file, what):
    file.write(f"{time.time():.3f} {what}\n")
    file.flush()


def one_line(error):
    return " ".join(str(error).split())[:300]


def open_connections():
    import psycopg2

    with open(CLIENT, "a") as log:
        while True:
            began = time.time()
            try:
                psycopg2.connect(**parameters()).close()
                note(log, "ok")
            except (psycopg2.Error, OSError) as error:
                said = one_line(error)
                is_handshake = HANDSHAKE.search(said) and not CUT_OFF.search(said)
                note(log, f"{'handshake' if is_handshake else 'unreachable'} {said}")
            time.sleep(max(0.0, 0.05 - (time.time() - began)))


def write():
    import psycopg2

    with open(WRITER, "a") as log:
        while True:
            try:
                session = psycopg2.connect(**parameters())
                session.autocommit = True
                cursor = session.cursor()
                cursor.execute("create table if not exists written (at timestamptz not null)")
                while True:
                    cursor.execute("insert into written values (now())")
                    note(log, "ok")
                    time.sleep(0.02)
            except (psycopg2.Error, OSError) as error:
                note(log, f"lost {one_line(error)}")
                time.sleep(0.05)


def lines(path, begin, end):
    with open(path) as file:
        for line in file:
            at, what = line.rstrip("\n").split(" ", 1)
            if begin <= float(at) <= end:
                yield float(at), what


def report(begin, end):
    seen = {"ok": 0, "handshake": 0, "unreachable": 0}
    said = {}
    for _, what in lines(CLIENT, begin, end):
        kind, _, why = what.partition(" ")
        seen[kind] += 1
        if why:
            said[why] = said.get(why, 0) + 1
    writes = [at for at, what in lines(WRITER, begin, end) if what == "ok"]
    gaps = [later - earlier for earlier, later in zip([begin] + writes, writes + [end])]
    print(json.dumps({"connections": sum(seen.values()), "failed": seen["handshake"], "unreachable": seen["unreachable"],
                      "writes": len(writes), "gap": round(max(gaps), 2), "said": said}))


def wire():
    ask = ["openssl", "s_client", "-starttls", "postgres", "-connect", f"{HOST}:5432", "-servername", HOST]
    shown = subprocess.run(ask, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10).stdout
    version = re.search(r"New, (TLSv[0-9.]+)", shown)
    if "BEGIN CERTIFICATE" not in shown:
        print("plaintext")
        return
    show = ["openssl", "x509", "-noout", "-serial", "-issuer", "-nameopt", "multiline"]
    leaf = subprocess.run(show, input=shown, capture_output=True, text=True, timeout=10).stdout
    serial = re.search(r"serial=(\w+)", leaf).group(1).lower()
    issuer = re.search(r"commonName\s*= (.*)", leaf).group(1)
    print(f"{version.group(1) if version else 'TLS'} from {issuer}, leaf ..{serial[-6:]}")


def main(arguments):
    match arguments:
        case ["run"]:
            threading.Thread(target=write, daemon=True).start()
            open_connections()
        case ["mode", wanted]:
            with open(MODE + ".new", "w") as file:
                file.write(wanted)
            os.replace(MODE + ".new", MODE)
        case ["now"]:
            print(f"{time.time():.3f}")
        case ["report", begin, end]:
            report(float(begin), float(end))
        case ["wire"]:
            wire()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
