"""What other tools write: COCO, labelme, YOLO-seg, folders of masks, JSONL with questions."""
