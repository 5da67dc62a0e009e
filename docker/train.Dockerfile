# docker build -f docker/train.Dockerfile -t blackswan .
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/repository" blackswan               dvc repro on your clone
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/repository" blackswan dvc status    any other command
FROM python:3.11.13-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    # whose the clone is, the image cannot know
    && git config --system --add safe.directory '*'

# The packages and the library; the rest of the repository is the clone that is mounted over them.
WORKDIR /repository
COPY pyproject.toml constraints.txt LICENSE ./
COPY blackswan blackswan
ARG EXTRAS=
RUN pip install --no-cache-dir --constraint constraints.txt --editable ".$EXTRAS"

# Not root, and what it writes belongs to the user that `--user` names: one without an entry in
# /etc/passwd needs a home and a name.
ENV HOME=/tmp USER=blackswan
USER 1000:1000
CMD ["dvc", "repro"]
