# One recipe for the three services: docker build --build-arg SERVICE=ingest .
# Written for the classic builder too.

FROM python:3.11-slim AS build
RUN python -m venv /opt/oncedrop
COPY requirements.txt /src/
# The same layer in all three images. Wheels only: neither stage has a compiler.
RUN /opt/oncedrop/bin/pip install --quiet --no-cache-dir --disable-pip-version-check \
    --require-hashes --only-binary :all: -r /src/requirements.txt
COPY libs/common /src/libs/common
ARG SERVICE
RUN test -n "$SERVICE" || { echo "build with --build-arg SERVICE=ingest, deliver or janitor"; exit 1; }
COPY services/${SERVICE} /src/service
# What installs is not needed to run.
RUN /opt/oncedrop/bin/pip install --quiet --no-cache-dir --disable-pip-version-check \
    --no-deps --no-build-isolation /src/libs/common /src/service \
 && /opt/oncedrop/bin/pip uninstall --quiet --yes setuptools pip

FROM python:3.11-slim
# A named volume takes over owner and mode of the folder it is first mounted on.
RUN groupadd --gid 10001 oncedrop \
 && useradd --uid 10001 --gid oncedrop --no-create-home --home-dir /nonexistent \
    --shell /usr/sbin/nologin oncedrop \
 && install -d -o oncedrop -g oncedrop -m 0700 /volume
COPY --from=build /opt/oncedrop /opt/oncedrop
COPY deploy/healthcheck.py /opt/oncedrop/healthcheck.py
ARG SERVICE
ENV PATH=/opt/oncedrop/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SERVICE=${SERVICE} \
    ONCEDROP_HOST=0.0.0.0 \
    ONCEDROP_VOLUME_DIR=/volume
USER 10001:10001
EXPOSE 8001 8002 8003
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-I", "/opt/oncedrop/healthcheck.py"]
CMD ["sh", "-c", "exec python -m oncedrop_${SERVICE}"]
