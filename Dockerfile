# One image for every role: `docker build -t simusage .`, then `docker run simusage worker --help`.

FROM python:3.12.12-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/simusage
ENV PATH=/opt/simusage/bin:$PATH
COPY requirements.lock ./
RUN pip install --no-cache-dir -r requirements.lock
COPY pyproject.toml README.md simusage.py ./
COPY streams streams
COPY connectors connectors
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.12.12-slim-bookworm
RUN useradd --system --uid 10001 --create-home simusage
COPY --from=build /opt/simusage /opt/simusage
ENV PATH=/opt/simusage/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/simusage
ENTRYPOINT ["simusage"]
CMD ["--help"]
