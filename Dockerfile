# Hookline's image: a static binary and the roots of the public certificate authorities, nothing else.
#
# The binary comes from the build context (make build), so that making the image needs no other image and no network.
# BASE may name a base with a shell instead, such as a distroless debug image.
ARG BASE=scratch
FROM ${BASE}
COPY bin/hookline /hookline
COPY bin/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
EXPOSE 8080 8081 9090
ENTRYPOINT ["/hookline"]
