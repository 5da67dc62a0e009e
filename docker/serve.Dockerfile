# docker build -f docker/serve.Dockerfile --build-arg EXPORT=data/exports/patchcore -t blackswan-serve .
# docker run --rm -p 8000:8000 --env BLACKSWAN_API_KEY blackswan-serve
FROM python:3.11.13-slim-bookworm AS build

WORKDIR /build
COPY pyproject.toml constraints.txt LICENSE ./
COPY docker/serve.txt docker/serve.txt
COPY blackswan blackswan
RUN python -m venv /opt/blackswan
RUN /opt/blackswan/bin/pip install --no-cache-dir --constraint constraints.txt --requirement docker/serve.txt
RUN /opt/blackswan/bin/pip install --no-cache-dir --no-deps .

# No torch, no compiler and none of the repository: the packages, and what `blackswan export` wrote.
FROM python:3.11.13-slim-bookworm

COPY --from=build /opt/blackswan /opt/blackswan
ARG EXPORT=data/exports/patchcore
COPY ${EXPORT} /detector
ENV PATH=/opt/blackswan/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 1000:1000
EXPOSE 8000
HEALTHCHECK --interval=10s --start-period=10s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/ready', timeout=3)"]
CMD ["python", "-m", "blackswan.serving", "/detector", "--host", "0.0.0.0", "--port", "8000"]
