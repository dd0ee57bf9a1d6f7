"""Label numbers used by the phantom: PANTHER's two and MRSegmentator's forty."""

from __future__ import annotations

#: PANTHER's label values in ``LabelsTr``.
BACKGROUND, TUMOUR, PANCREAS = 0, 1, 2

#: MRSegmentator's multi-organ label table (mrsegmentator 2.0.0, README, "Class details").
ORGANS: dict[str, int] = {
    "background": 0,
    "spleen": 1,
    "right_kidney": 2,
    "left_kidney": 3,
    "gallbladder": 4,
    "liver": 5,
    "stomach": 6,
    "pancreas": 7,
    "right_adrenal_gland": 8,
    "left_adrenal_gland": 9,
    "left_lung": 10,
    "right_lung": 11,
    "heart": 12,
    "aorta": 13,
    "inferior_vena_cava": 14,
    "portal_vein_and_splenic_vein": 15,
    "left_iliac_artery": 16,
    "right_iliac_artery": 17,
    "left_iliac_vena": 18,
    "right_iliac_vena": 19,
    "esophagus": 20,
    "small_bowel": 21,
    "duodenum": 22,
    "colon": 23,
    "urinary_bladder": 24,
    "spine": 25,
    "sacrum": 26,
    "left_hip": 27,
    "right_hip": 28,
    "left_femur": 29,
    "right_femur": 30,
    "left_autochthonous_muscle": 31,
    "right_autochthonous_muscle": 32,
    "left_iliopsoas_muscle": 33,
    "right_iliopsoas_muscle": 34,
    "left_gluteus_maximus": 35,
    "right_gluteus_maximus": 36,
    "left_gluteus_medius": 37,
    "right_gluteus_medius": 38,
    "left_gluteus_minimus": 39,
    "right_gluteus_minimus": 40,
}
