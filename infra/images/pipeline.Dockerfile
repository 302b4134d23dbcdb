# The image of every pipeline step: what training, platform and the bento's page need, in the lock's versions, and the code.
#   docker build -t "$(python -c 'from components.image import IMAGE; print(IMAGE)')" -f infra/images/pipeline.Dockerfile .
# Written on a machine without a container engine: not built or run there.
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
# The packages come before the code, so that changed code does not fetch them again. The lock only pins them: it has the
# tests' own, too, which no step needs.
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY genreflow/version.py genreflow/version.py
# A plain index gives the CUDA build of torch; for CPU nodes name an index of CPU wheels with --build-arg TORCH_INDEX=…
ARG TORCH_INDEX
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
    --constraint requirements.lock '.[train,platform,page]'
COPY genreflow genreflow
COPY components components
COPY serving serving
COPY pipelines pipelines
RUN pip install --no-cache-dir --no-deps --force-reinstall . \
    && useradd --create-home --uid 1000 genreflow
USER 1000
WORKDIR /home/genreflow
