# FluxSR on a CPU, with the page. Built from the root of the repository:
#
#   docker build -t fluxsr .
#   docker run --rm -v "$PWD":/photos fluxsr upscale /photos/photo.jpg -o /photos/large.png
#   docker run --rm -p 7860:7860 fluxsr app --host 0.0.0.0
#
# torch comes with CUDA's libraries by default. --build-arg TORCH_INDEX=ADDRESS takes it from an index of wheels without them,
# which makes the image 4 GB smaller.
FROM python:3.12-slim
ARG TORCH_INDEX=""
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch>=2.6"
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY LICENSES LICENSES
COPY examples/configs examples/configs
COPY fluxsr fluxsr
RUN pip install --no-cache-dir ".[app]" && rm -rf /src
RUN useradd --create-home --uid 1000 user
USER user
WORKDIR /home/user
EXPOSE 7860
ENTRYPOINT ["fluxsr"]
CMD ["--help"]
