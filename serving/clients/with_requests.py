"""The genre of a song, through requests: python with_requests.py song.mp3 [address]."""

import sys
from pathlib import Path

import requests

song, address = [*sys.argv[1:], "http://127.0.0.1:3000"][:2]
with Path(song).open("rb") as file:
    reply = requests.post(f"{address}/classify", files={"file": file}, timeout=300)
if not reply.ok:
    sys.exit(reply.text)
answer = reply.json()
print(f"{answer['genre']} {answer['confidence']:.0%}")
