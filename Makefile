# The two targets that pipelines of the picker's users call. scripts/build-images.sh does the work, for all images.
.PHONY: image-build image-push

image-build:
	scripts/build-images.sh build epp

image-push:
	scripts/build-images.sh tag push epp
