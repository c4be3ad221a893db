# A counter that keeps a log, and beside it the total of what is in the log.
#
#     holdfast run URL counter --state DIR --pause -- sh counter.sh N
#
# Both files are written in place. As after a kill, the log may be one line ahead of the
# total: then the total is corrected. A copy that has another difference is torn.
#
#     sh counter.sh check DIR      says how far it is, or fails if the files in DIR do not belong together

lines() { wc -l <"$1/log" 2>/dev/null | tr -d ' '; }

if [ "$1" = check ]; then
	[ -e "$2/log" ] || { echo "step 0"; exit 0; }
	total=$(sed 's/^0*\(.\)/\1/' "$2/total")
	ahead=$(($(lines "$2") - ${total:-0}))
	[ "$ahead" = 0 ] || [ "$ahead" = 1 ] || { echo "torn: the log is $ahead lines ahead of the total" >&2; exit 1; }
	echo "step $(lines "$2")"
	exit 0
fi

cd "$HOLDFAST_STATE" || exit 1
touch log
n=$(lines .)
echo "from $n"
printf '%08d\n' "$n" 1<>total
while [ "$n" -lt "$1" ]; do
	n=$((n + 1))
	echo "$n" >>log
	# The total is written over what was there: it is never empty.
	printf '%08d\n' "$n" 1<>total
	[ $((n % 10)) = 0 ] && echo "at $n"
done
echo "sum $(awk '{ s += $1 } END { print s }' log)"
