"""What scripts do: JSON in and out, regular expressions, dictionaries.  Prints one line that depends on all of it."""
import json
import re

records = [{"id": i, "name": f"user{i * 7919 % 10007}", "mail": f"u{i}@host{i % 13}.example.org",
            "score": i * 37 % 1000 / 8, "tags": [f"t{i % k}" for k in (3, 5, 7)], "active": i % 3 == 0} for i in range(20000)]
text = json.dumps(records)
again = json.loads(text)
assert again == records

hosts = {}
for user, host in re.findall(r'"mail": "(\w+)@([a-z0-9.]+)"', text):
    hosts[host] = hosts.get(host, 0) + len(user)
renamed = re.sub(r"user(\d+)", lambda m: f"person-{int(m[1]) ^ 5:05d}", text)
words = re.split(r'[\s,:{}\[\]"]+', renamed)
log = "\n".join(f"2026-11-{i % 28 + 1:02d} 10:{i % 60:02d}:00 host{i % 7} sshd[{i}]: {'Failed' if i % 5 else 'Accepted'} "
                f"password for root from 10.0.{i % 256}.{i * 7 % 256} port {1024 + i}" for i in range(20000))
line = re.compile(r"^(\d{4}-\d\d-\d\d) (\d\d:\d\d):\d\d (\S+) (\w+)\[(\d+)\]: (Failed|Accepted) \w+ for (\S+) "
                  r"from ((?:\d{1,3}\.){3}\d{1,3}) port (\d+)$", re.M)
failed = sum(int(m[9]) for m in line.finditer(log) if m[6] == "Failed")
best = sorted(again, key=lambda r: (-r["score"], r["name"]))[:100]
print(len(text), len(words), failed, sum(r["id"] for r in best), *sorted(hosts.values()))
