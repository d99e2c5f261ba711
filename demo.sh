#!/usr/bin/env bash
# The main job from end to end on miniature datasets. Every hodata or hotrain command that it shows works the same
# on the real ones. `make demo` calls it; BIN: where the commands are, OUT: where everything goes.
set -euo pipefail
cd "$(dirname "$0")"
PATH="$PWD/${BIN:-.venv/bin}:$PATH"
OUT=${OUT:-demo}
# A short run from random weights on small pictures: a small model, small steps, many of them, an optimizer that learns
# much from each, little augmentation and dropout. Where the processor computes in bfloat16 there is time for more steps.
SHORT="--batch-size 8 --workers 1 --optimizer muon --jitter 0.25 --body-factor 1 --dropout 0.1"
STAGE1=2400 STAGE2=2200
if grep -qsE 'avx512_bf16|amx_bf16' /proc/cpuinfo; then SHORT="$SHORT --precision bf16" STAGE1=2800 STAGE2=3000; fi

say() { printf '\n== %s\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }

started=$SECONDS
rm -rf "$OUT/shards" "$OUT/hand" "$OUT/hand-object" # made by an earlier demo
mkdir -p "$OUT"

say "miniature datasets, in the layouts of the real ones, with a stand-in for the hand model and the objects' meshes"
[ -d "$OUT/raw/ycb" ] || show hodata synth --out "$OUT/raw" --source freihand --source egohos --source egohands \
  --source ho3d --source mano --source ycb

say "each into shards, split by recording; HO-3D's masks are rendered from its poses"
for source in freihand egohos egohands ho3d; do
  # 3: done, but some input was left out. Some HO-3D frames have no annotation, as in the real one.
  show hodata build --source "$source" --root "$OUT/raw/$source" --out "$OUT/shards" || [ $? = 3 ]
done

say "what is in them"
show hodata verify "$OUT/shards"
show hodata inspect "$OUT/shards" --sheet "$OUT/shards.png" --html "$OUT/shards.html"

say "stage 1: hands"
show hotrain fit --shards "$OUT/shards/*.tar" --out "$OUT/hand" --task hand \
  --model deeplabv3_mobilenet_v3_large --weights none --crop 160 $SHORT --balance 0.5 --lr 3e-3 --schedule constant \
  --samples-per-epoch $STAGE1 --epochs 1 --source-weight freihand=340 --source-weight egohos=430 \
  --source-weight ho3d_v3=370 --source-weight egohands=360

say "stage 2: hands and objects, from stage 1"
show hotrain fit --shards "$OUT/shards/*.tar" --out "$OUT/hand-object" --task hand-object \
  --init "$OUT/hand" --crop 192 $SHORT --balance 0.15 --ema 0.98 --lr 3e-3 \
  --samples-per-epoch $STAGE2 --epochs 2 --source-weight egohos=850 --source-weight ho3d_v3=500 \
  --source-weight freihand=250 --source-weight egohands=400

say "scores on recordings that training never saw"
show hotrain eval --checkpoint "$OUT/hand-object" --shards "$OUT/shards/*.tar" --baseline --tta flip \
  --sheet "$OUT/predictions.png" --html "$OUT/report.html"

say "its model at work: one recording annotated, for HOnnotate, for COCO tools and for people"
rm -rf "$OUT/annotated"
show hotrain annotate --checkpoint "$OUT/hand-object" "$OUT/raw/ho3d/evaluation/SM1" --out "$OUT/annotated" --format honnotate,coco,overlay
show hotrain review "$OUT/annotated" --no-serve

say "done in $(((SECONDS - started) / 60)) min $(((SECONDS - started) % 60)) s; look at"
printf '  %s\n' "$OUT/shards.png           contact sheet of the shards" \
  "$OUT/shards.html          the same to browse" \
  "$OUT/predictions.png      image | truth | prediction" \
  "$OUT/report.html          every figure with its interval, the worst and the best samples" \
  "$OUT/hand-object/curves.png  training curves" \
  "$OUT/annotated/review.html  masks of one recording, the doubtful ones first"
