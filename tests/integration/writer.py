"""An application that writes without pause until it is killed. Each transaction touches three rows in
two tables; after COMMIT has returned, the transaction's number goes to a side file.

    writer.py EXTENSION APP.db DEVICE SIDE_FILE PAUSE_SECONDS"""
import os
import sqlite3
import sys
import time

extension, path, device, side, pause = sys.argv[1:6]
db = sqlite3.connect(path, isolation_level=None, timeout=30)
db.enable_load_extension(True)
db.load_extension(extension)
db.execute("PRAGMA foreign_keys = ON")
acknowledged = os.open(side, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
number = db.execute("SELECT count(*) FROM pins WHERE id LIKE ?", (device + "-%",)).fetchone()[0]
while True:
    number += 1
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO pins(id, title, lat) VALUES (?, ?, ?)", (f"{device}-{number}", f"pin {number}", number / 3))
    db.execute("INSERT INTO forms(id, pin_id, body) VALUES (?, ?, ?)",
               (f"{device}-f{number}", f"{device}-{number}", "x" * 100))
    db.execute(f'UPDATE shared SET "{device}" = ? WHERE id = 1', (number,))
    db.execute("COMMIT")
    os.write(acknowledged, b"%d\n" % number)
    time.sleep(float(pause))
