"""Annotation formats that can be read, one file and one row of ``table.FORMATS`` each.

COCO, labelme, YOLO-seg, folders of masks, JSONL with questions. A format knows how its files are
recognised and read; it refuses to know splits, and what is asked about an image.
"""
