# The image of every pipeline step: the locked environment and the code.
#   docker build -t "$(python -c 'from components.image import IMAGE; print(IMAGE)')" -f infra/images/pipeline.Dockerfile .
# Written on a machine without a container engine: not built or run there.
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
COPY requirements.lock ./
# A plain index gives the CUDA build of torch; for CPU nodes name an index of CPU wheels with --build-arg TORCH_INDEX=…
ARG TORCH_INDEX
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY genreflow genreflow
COPY components components
COPY serving serving
COPY pipelines pipelines
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
    && useradd --create-home --uid 1000 genreflow
USER 1000
WORKDIR /home/genreflow
