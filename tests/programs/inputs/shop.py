# An in-memory database from a fixed generator, then a report.
import hashlib, json, sqlite3, zlib

state = 7
def rnd(n):
    global state
    state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
    return (state >> 33) % n

db = sqlite3.connect(":memory:")
db.execute("create table sale(day int, item text, cents int)")
items = ["anise", "basil", "cumin", "dill"]
db.executemany("insert into sale values(?,?,?)", [(rnd(30), items[rnd(4)], 50 + rnd(950)) for _ in range(5000)])
rows = db.execute("select item, count(*), sum(cents), max(day) from sale group by item order by sum(cents) desc").fetchall()
for row in rows:
    print("{:<6}{:>6}{:>10.2f}{:>4}".format(row[0], row[1], row[2] / 100, row[3]))
blob = json.dumps(db.execute("select * from sale order by rowid").fetchall()).encode()
print(len(blob), len(zlib.compress(blob, 9)) < len(blob) // 2, hashlib.sha256(blob).hexdigest())
