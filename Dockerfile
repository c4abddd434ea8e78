# One image for web, scheduler and worker; the command decides. PyTorch's build decides whether it uses GPUs:
# the one pip installs by default does, and runs without them too.
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/athanor
WORKDIR /srv/athanor
COPY requirements.txt .
# First and alone: it is large and changes rarely. An argument, so that a build can choose another index for it.
ARG TORCH_INDEX_URL=""
RUN /opt/athanor/bin/pip install ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} "$(grep '^torch==' requirements.txt)"
RUN /opt/athanor/bin/pip install -r requirements.txt
COPY . .
RUN /opt/athanor/bin/pip install --no-deps --no-build-isolation -e . && \
    /opt/athanor/bin/python -m compileall -q app worker trainer && /opt/athanor/bin/python -m app.web.pages

FROM python:3.11-slim-bookworm
RUN useradd --uid 1000 --create-home athanor && install -d -o athanor -g athanor /data /home/athanor/.config
COPY --from=build /opt/athanor /opt/athanor
COPY --from=build /srv/athanor /srv/athanor
WORKDIR /srv/athanor
ENV PATH=/opt/athanor/bin:$PATH PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 ATHANOR_DATA=/data ATHANOR_HOST=0.0.0.0
USER athanor
VOLUME /data
EXPOSE 8000
ENTRYPOINT ["athanor"]
CMD ["web"]
