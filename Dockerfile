# Stage one fetches and builds; the image that runs holds a virtual environment and nothing else of it.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /opt/driftline
COPY deploy/requirements.lock .
RUN /opt/driftline/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY stream stream
COPY consumers consumers
RUN /opt/driftline/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11.14-slim-bookworm
# One process per stage is the unit of scale: numeric libraries must not start a pool in each.
ENV PATH=/opt/driftline/bin:$PATH PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
RUN useradd --system --uid 10001 --home-dir /var/lib/driftline driftline \
    && install -d -o driftline -g driftline /var/lib/driftline /var/lib/driftline/artefacts \
    /var/lib/driftline/console
COPY --from=build /opt/driftline /opt/driftline
WORKDIR /var/lib/driftline
USER 10001
ENTRYPOINT ["driftline"]
CMD ["--help"]
