"""A writer to an SQLite database that knows nothing of checkpoints.

    holdfast run URL db --state DIR --pause -- python3 sqlite.py N

Each transaction moves an amount from one account to another, and logs that. The sum of all
accounts is always the same. A copy of the database that is made while it writes is torn;
one that is made while it stands still is what a kill leaves, from which SQLite recovers.

    python3 sqlite.py check DIR      says how many transactions DIR has, or fails if the database
                                     in it is damaged, or the sum is wrong
"""

import os
import sqlite3
import sys

ACCOUNTS = 2000


def open_database(state):
    db = sqlite3.connect(os.path.join(state, "accounts.db"), isolation_level=None)
    db.execute("PRAGMA synchronous=OFF")  # a checkpoint needs no loss of power to be survived
    db.execute("BEGIN IMMEDIATE")
    db.execute("CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY, amount INTEGER, filler TEXT)")
    db.execute("CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, amount INTEGER)")
    if db.execute("SELECT count(*) FROM account").fetchone()[0] == 0:
        db.executemany("INSERT INTO account VALUES (?, 1000, ?)", ((i, "x" * 400) for i in range(ACCOUNTS)))
    db.execute("COMMIT")
    return db


def write(state, n):
    db = open_database(state)
    done = db.execute("SELECT coalesce(max(id), 0) FROM log").fetchone()[0]
    print("from", done, flush=True)
    while done < n:
        done += 1
        db.execute("BEGIN IMMEDIATE")
        # Many pages, far from each other.
        for k in range(20):
            a, b = (done * 7919 + k * 104729) % ACCOUNTS, (done * 6007 + k * 15485863) % ACCOUNTS
            db.execute("UPDATE account SET amount = amount - 1 WHERE id = ?", (a,))
            db.execute("UPDATE account SET amount = amount + 1 WHERE id = ?", (b,))
        db.execute("INSERT INTO log VALUES (?, 20)", (done,))
        db.execute("COMMIT")
        if done % 10 == 0:
            print("at", done, flush=True)
    print("sum", *db.execute("SELECT sum(id * amount % 65521), (SELECT sum(id) FROM log) FROM account").fetchone(), flush=True)


def check(state):
    if not os.path.exists(os.path.join(state, "accounts.db")):
        print("step", 0)
        return
    try:
        db = sqlite3.connect(os.path.join(state, "accounts.db"))
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            print("step", 0)  # before its first transaction
            return
        whole = db.execute("PRAGMA integrity_check").fetchone()[0]
        total = db.execute("SELECT sum(amount) FROM account").fetchone()[0]
        done = db.execute("SELECT coalesce(max(id), 0) FROM log").fetchone()[0]
    except sqlite3.DatabaseError as e:
        sys.exit(f"torn: {e}")
    if whole != "ok" or total != ACCOUNTS * 1000:
        sys.exit(f"torn: {whole}; the sum is {total}, and was {ACCOUNTS * 1000}")
    print("step", done)


if sys.argv[1] == "check":
    check(sys.argv[2])
else:
    write(os.environ["HOLDFAST_STATE"], int(sys.argv[1]))
