"""What measures and tries this project itself: in a checkout only, in neither archive."""
