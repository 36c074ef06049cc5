"""Exits with 0 if this container's master answers, or its worker is one of those that the master counts as alive."""

import json
import socket
import sys
from urllib.request import urlopen

here = socket.gethostbyname(socket.gethostname())
with urlopen("http://master:8080/json/", timeout=5) as answer:
    workers = json.load(answer)["workers"]
is_master = socket.gethostbyname("master") == here
sys.exit(not (is_master or any(worker["host"] == here and worker["state"] == "ALIVE" for worker in workers)))
