#!/bin/bash
# exec, attach, cp and port-forward by a real kubectl, over WebSocket and SPDY, against streams_main. Needs kubectl and python3.
set -u
command -v kubectl >/dev/null || { echo "kubectl is not installed"; exit 77; }
main=$1
dir=$(mktemp -d)
"$main" 127.0.0.1:0 > "$dir/port" 2> "$dir/log" &
pid=$!
python3 -m http.server --bind 127.0.0.1 --directory "$dir" 0 > "$dir/www.out" 2>&1 &
www=$!
fwd=
trap 'kill $pid $www $fwd 2>/dev/null; wait 2>/dev/null; rm -rf "$dir"' EXIT
for _ in $(seq 100); do [ -s "$dir/port" ] && break; sleep 0.05; done
export HOME=$dir
k="timeout 20 kubectl --server http://127.0.0.1:$(cat "$dir/port")"
failed=0 passed=0
ok() { # name, expected, got
	if [ "$2" = "$3" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED $1: expected '$2', got '$3'"; fi
}
head -c 3000000 /dev/urandom > "$dir/blob"
sum=$(md5sum < "$dir/blob")
for ws in true false; do
	export KUBECTL_REMOTE_COMMAND_WEBSOCKETS=$ws KUBECTL_PORT_FORWARD_WEBSOCKETS=$ws
	ok "exec $ws" "hello" "$($k exec p -- echo hello 2>&1)"
	ok "exec err $ws" "oops" "$($k exec p -- sh -c 'echo out >/dev/null; echo oops >&2' 2>&1 >/dev/null)"
	$k exec p -- sh -c 'exit 42' > /dev/null 2> "$dir/e"
	ok "exit code $ws" 42 $?
	ok "exit text $ws" "command terminated with exit code 42" "$(cat "$dir/e")"
	ok "stdin $ws" "abc" "$(printf abc | $k exec -i p -- cat 2>&1)"
	ok "big stdin $ws" "$sum" "$($k exec -i p -- md5sum < "$dir/blob" 2>&1)"
	ok "big stdout $ws" "$sum" "$($k exec p -- cat "$dir/blob" 2>/dev/null | md5sum)"
	ok "both ways $ws" "$sum" "$($k exec -i p -- cat < "$dir/blob" 2>/dev/null | md5sum)"
	ok "missing $ws" 1 "$($k exec p -- /no/such/program > /dev/null 2>&1; echo $?)"
	ok "attach $ws" "typed" "$(printf typed | $k attach -i p 2>/dev/null)"
	rm -f "$dir/copy" "$dir/back"
	$k cp "$dir/blob" "p:$dir/copy" > "$dir/e" 2>&1
	ok "cp to $ws" "$sum" "$(md5sum < "$dir/copy")"
	$k cp "p:$dir/copy" "$dir/back" > "$dir/e" 2>&1
	ok "cp from $ws" "$sum" "$(md5sum < "$dir/back")"
	# A terminal. In timeout's own process group kubectl would be in its background and stop at the first look at it.
	ok "tty $ws" "in a tty" "$(python3 -c 'import pty, sys; pty.spawn(sys.argv[1:])' \
		timeout --foreground ${k#timeout } exec -it p -- echo 'in a tty' < /dev/null 2>&1 | tr -d '\r')"
	# kubectl killed: the command goes too.
	$k exec p -- sleep 4242 > /dev/null 2>&1 &
	ex=$!
	for _ in $(seq 100); do pgrep -f '^sleep 4242' > /dev/null && break; sleep 0.05; done
	kill $ex
	wait $ex 2>/dev/null
	for _ in $(seq 100); do pgrep -f '^sleep 4242' > /dev/null || break; sleep 0.05; done
	ok "killed $ws" "" "$(pgrep -f '^sleep 4242')"
	wport=
	for _ in $(seq 600); do # its start may look up names
		wport=$(ss -Hltnp 2>/dev/null | grep "pid=$www," | awk '{print $4}' | sed 's/.*://' | head -1)
		[ -n "$wport" ] && break
		sleep 0.05
	done
	: > "$dir/f"
	kubectl --server "http://127.0.0.1:$(cat "$dir/port")" port-forward pod/p ":$wport" > "$dir/f" 2>&1 &
	fwd=$!
	for _ in $(seq 100); do grep -q Forwarding "$dir/f" && break; sleep 0.05; done
	lport=$(sed -n 's/.*127.0.0.1:\([0-9]*\) .*/\1/p' "$dir/f" | head -1)
	for i in 1 2 3; do
		ok "forward $ws $i" "$sum" "$(curl -s --max-time 10 "http://127.0.0.1:$lport/blob" | md5sum)"
	done
	for i in $(seq 10); do curl -s --max-time 10 "http://127.0.0.1:$lport/blob" | md5sum > "$dir/p$i" & c[$i]=$!; done
	for i in $(seq 10); do wait ${c[$i]}; ok "parallel forward $ws $i" "$sum" "$(cat "$dir/p$i")"; done
	kill $fwd; wait $fwd 2>/dev/null
done
kill $pid
wait $pid
ok "orderly end" 0 $?
[ $failed -eq 0 ] || cat "$dir/log"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
