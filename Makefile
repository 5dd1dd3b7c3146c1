# The picker's image by the two names that its users' pipelines call; scripts/build-images.sh does the work, for all images.
.PHONY: image-build image-push

image-build:
	scripts/build-images.sh build epp

image-push:
	scripts/build-images.sh tag push epp
