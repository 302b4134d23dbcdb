"""The genre of a song, through BentoML's client: python with_bentoml.py song.mp3 [address]."""

import sys
from pathlib import Path

import bentoml

song, address = [*sys.argv[1:], "http://127.0.0.1:3000"][:2]
with bentoml.SyncHTTPClient(address) as client:
    answer = client.classify(file=Path(song))
print(f"{answer['genre']} {answer['confidence']:.0%}")
