# The worker as an image: locked dependencies, no compiler, no cache, an unprivileged user.
# The base is named by its digest (that of the index of all platforms), so that every build has the same one.
FROM python:3.13.9-slim-bookworm@sha256:b685a4fa58bb19d1814d78a1ec0f0208f351452724f78b20212c984d6e124a34 AS build
WORKDIR /build
RUN python -m venv /opt/metasync
COPY requirements/build.txt requirements/run.txt requirements/
RUN /opt/metasync/bin/pip install --no-cache-dir --require-hashes --requirement requirements/run.txt \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement requirements/build.txt
COPY pyproject.toml README.md LICENSE hatch_build.py ./
COPY metasync metasync
COPY config config
COPY worker worker
COPY examples examples
# What `metasync --version -v` says: the build sees no git. `--build-arg SOURCE_COMMIT="$(git rev-parse HEAD)"`
ARG SOURCE_COMMIT
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/metasync/bin/pip install --no-cache-dir --no-deps dist/*.whl \
    && /opt/metasync/bin/pip uninstall --yes pip

FROM python:3.13.9-slim-bookworm@sha256:b685a4fa58bb19d1814d78a1ec0f0208f351452724f78b20212c984d6e124a34
ARG SOURCE_COMMIT
LABEL org.opencontainers.image.title="metasync" \
      org.opencontainers.image.revision="$SOURCE_COMMIT" \
      org.opencontainers.image.description="Keeps the metadata of stored chat completions in line with a queue of changes"
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin metasync \
    && install --directory --owner=10001 --group=10001 /data
COPY --from=build /opt/metasync /opt/metasync
ENV PATH=/opt/metasync/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
# Where the queue is unless a setting says otherwise. None is set here: it would win over a mounted secret.
WORKDIR /data
VOLUME /data
STOPSIGNAL SIGTERM
# Without a port there is nothing to ask: a process that runs is then taken to be well. The proxy that
# Docker may give to every container has no part in it.
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s \
    CMD ["python", "-c", "import os, urllib.request as u; p = os.environ.get('METASYNC_HTTP_PORT'); p and u.build_opener(u.ProxyHandler({})).open(f'http://127.0.0.1:{p}/livez', timeout=4)"]
ENTRYPOINT ["metasync"]
CMD ["run"]
