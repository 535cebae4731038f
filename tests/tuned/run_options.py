"""Options of the quick start's recipe that make it a small run, for all tests here."""

OPTIONS = (
    "datasets.emoset_sketch.build_info.images.storage=small_sketch",
    "datasets.emoset_sketch.build_info.prepare.draw.images_per_class=30",
    "run.max_epoch=2",
    "run.num_threads=1",
    "run.num_report_answers=2",
    "run.device=cpu",
    "run.keep_last=9",
    "run.report=false",
)
