# Runs `prip serve` with the embedded default on the CPU:
#   docker build -t prip . && docker run --rm -p 127.0.0.1:8000:8000 -e PRIP_API_KEY prip
# For another checkpoint: docker run ... prip --model owner/name (arguments after the image name go to `prip serve`).
FROM python:3.12-slim AS build
RUN python -m venv /opt/prip
ENV PATH=/opt/prip/bin:$PATH
RUN pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
COPY . /src
RUN pip install --no-cache-dir "/src[serve]"

FROM python:3.12-slim
RUN useradd --create-home prip
COPY --from=build /opt/prip /opt/prip
USER prip
WORKDIR /home/prip
ENV PATH=/opt/prip/bin:$PATH PYTHONUNBUFFERED=1
EXPOSE 8000
HEALTHCHECK --interval=30s --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=5)"]
ENTRYPOINT ["prip", "serve", "--host", "0.0.0.0"]
