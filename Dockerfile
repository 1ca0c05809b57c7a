# The service, with the torch engine on a CPU. PIP_ARGS chooses another index, such as PyTorch's for
# CPU wheels: docker build --build-arg PIP_ARGS="--extra-index-url ..." -t nps-store .

FROM python:3.11-slim AS build
ARG PIP_ARGS=""
WORKDIR /src
RUN python -m venv /opt/nps
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY formats formats
COPY nps_store nps_store
COPY server server
COPY benchmarks benchmarks
# shellcheck disable=SC2086 (words)
RUN /opt/nps/bin/pip install --no-cache-dir -c constraints.txt $PIP_ARGS '.[server,fast]' \
    && /opt/nps/bin/nps selftest

FROM python:3.11-slim
RUN useradd --system --create-home --uid 10001 nps
COPY --from=build /opt/nps /opt/nps
ENV PATH=/opt/nps/bin:$PATH HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/nps
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD ["python", "-c", \
    "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["nps"]
CMD ["serve", "/data/tasks.nps", "--base", "/data/base", "--host", "0.0.0.0"]
