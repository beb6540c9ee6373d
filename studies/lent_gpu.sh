#!/usr/bin/env bash
# Makes the bundled base, or measures the benchmark, on a lent GPU machine that can download nothing.
#
# On a machine with a network, in the root of the repository (.whl/ and .site/ are in .git/info/exclude):
#   pip install --no-deps --no-compile --target .site diffusers==0.42.1 transformers==5.23.0 omegaconf==2.4.0 \
#       importlib_metadata && mkdir -p .whl && tar cJf .whl/site.tar.xz -C .site .      # 6.5 MB; the wheels have 20
# The image has torch 2.11, and transformers 5.17, which cannot load the recognizers. Then, on the lent machine,
# with .whl carried along. The folder $OUT comes back: at most 8 files of 16 MB.
#   OUT=out bash studies/lent_gpu.sh base 9.0 --begin-with models/puppet-theatre --first-shard 4000 \
#       --batch-size 384 --check-clips 1000000000
# 9.0 are the minutes for making the base. With 9.2 minutes an H100 took 9.9 in all, and a command may take 10.
# The card of the base says which options made the bundled one. Without --begin-with a base is made from nothing.
# Next, while the machine is warm, with the wheel of av==18.1.0 alone in .whl (36 MB; the others are installed).
# Move the bundled weights aside until it is done, because more than 64 MiB do not travel:
#   OUT=out bash studies/lent_gpu.sh benchmark
# In 190 s it measured the steps of the ZeroScope-size UNet, and in 61 s more (--parts memory) their memory.
#
# Back here: cat $OUT/base.tar.* | tar x; a base that is better than the committed one goes to models/puppet-theatre.
set -euo pipefail
site=/tmp/site
mkdir -p "$site" "$OUT"
shopt -s nullglob
for archive in .whl/*.tar.xz; do python3 -m tarfile -e "$archive" "$site"; done
for wheel in .whl/*.whl; do
    python3 -m pip install -q --no-index --no-deps --no-compile --target "$site" "$wheel"
done
export PYTHONPATH="$site" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1

make_base() {
    local work=/tmp/work minutes=$1 more=("${@:2}")
    for attempt in 1 2 3; do
        python3 -m puppets.pretrain_base --work-dir "$work" --minutes "$minutes" --total-minutes "$1" \
            --num-measured 0 "${more[@]}" 2>&1 | tee -a "$OUT/log.txt" && break
        # Go on from the last checkpoint with the minutes that are left, in smaller batches and steps, and
        # without the checks of teachability.
        minutes=$(python3 -c "print(max(0.2, $1 - $SECONDS / 60))")
        more+=(--check-clips 1000000000 --batch-size 192 --learning-rate 7e-4)
    done
    (cd "$work" && tar c base ./*.jsonl) | split -b 15000000 - "$OUT/base.tar."
    python3 -m puppets.measure_base --base "$work/base" --num 256 --batch-size 64 --sheet 16 --out "$work/measured" \
        2>&1 | tee -a "$OUT/log.txt"
    cp "$work/measured/scores.json" "$work/measured/sheet.png" "$OUT"
}

case "$1" in
    base) make_base "${@:2}" ;;
    benchmark) python3 -m studies.benchmark --cases zeroscope --quick --output "$OUT" "${@:2}" ;;
    *) echo "usage: OUT=FOLDER $0 base MINUTES [OPTIONS OF puppets.pretrain_base] | benchmark" >&2; exit 2 ;;
esac
