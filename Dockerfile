# docker build -t blackswan .
# docker run --rm -v "$PWD:/repository" blackswan                  dvc repro on your clone
# docker run --rm -v "$PWD:/repository" blackswan dvc status       any other command
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    # the clone belongs to somebody outside of the container
    && git config --system --add safe.directory '*'

# The packages, which change seldom, before the code, which changes often.
WORKDIR /repository
COPY pyproject.toml constraints.txt LICENSE ./
COPY blackswan blackswan
RUN pip install --no-cache-dir --constraint constraints.txt --editable .

COPY . .
CMD ["dvc", "repro"]
