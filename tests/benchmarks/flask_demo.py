"""The service that is compared with: `transformers.pipeline` behind Flask, as such demos are usually built.

    python flask_demo.py MODEL PORT

`POST /` classifies a clip as a whole; `POST /?window_seconds=10` in windows, which is the work that our
service does.
"""

import sys

import librosa
from flask import Flask, Response, jsonify, request
from transformers import pipeline

application = Flask(__name__)
# a head that is not one of transformers' own lies beside the weights
classify = pipeline("audio-classification", model=sys.argv[1], device="cpu", trust_remote_code=True)
rate = classify.feature_extractor.sampling_rate


@application.get("/readyz")
def ready() -> str:
    return "ready"


@application.post("/")
def answer() -> Response:
    samples, _ = librosa.load(request.files["file"].stream, sr=rate, mono=True)
    if "window_seconds" not in request.args:
        return jsonify(classify(samples))
    window = round(float(request.args["window_seconds"]) * rate)
    last = max(1, len(samples) - window // 2)  # the few samples past the last whole window are no window
    return jsonify(classify([samples[start : start + window] for start in range(0, last, window)]))


if __name__ == "__main__":
    application.run("127.0.0.1", int(sys.argv[2]), threaded=True)
