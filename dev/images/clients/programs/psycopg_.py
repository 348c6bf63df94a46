"""psycopg: the line of docs/clients.md is code."""

import os
import time

import psycopg

for _ in range(int(os.environ["TIMES"])):
    try:
        with eval(os.environ["PSYCOPG"]) as connection:
            print("psycopg ok", connection.execute(os.environ["QUERY"]).fetchone()[0], flush=True)
    except Exception as error:
        print("psycopg failed", " ".join(str(error).split()), flush=True)
    time.sleep(0.5)
