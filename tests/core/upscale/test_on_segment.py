from oasis_core.upscale import VideoUpscaler, upscale_file


def test_shots_and_segments_are_announced_in_order(write_video, conv_model, tmp_path):
    upscaler = VideoUpscaler(conv_model, device="cpu", dtype="float32", model_hash="test")
    seen = []
    upscale_file(
        write_video("both.mkv", (6, 11)),
        tmp_path / "out.mkv",
        upscaler=upscaler,
        scale=2,
        codec="ffv1",
        segment_frames=4,
        on_segment=lambda shot, segment: seen.append((shot, segment)),
    )
    assert [segment for _, segment in seen] == list(range(len(seen)))
    shots = [shot for shot, _ in seen]
    assert shots == sorted(shots)
    assert set(shots) == {0, 1}
