# Stand-in: see README.md. The procd_* calls of init scripts, and what procd does with a service that is
# set: start what is new, restart what has another command or another content of a file, end the rest.
_P=/var/run/procd
mkdir -p "$_P/new"
_log() { echo "$*" >>"$_P/log"; }
procd_open_service() {
	_log open_service "$1"
	rm -rf "$_P/new"
	mkdir -p "$_P/new"
}
procd_open_instance() {
	_log open_instance "$1"
	_now="$_P/new/$1"
	mkdir -p "$_now"
}
procd_set_param() {
	local kind=$1
	shift
	_log set_param "$kind" "$@"
	for each in "$@"; do echo "$each"; done >"$_now/$kind"
	# As procd does: a service is another one when the content of its files is.
	[ "$kind" = file ] && cat "$@" | md5sum >"$_now/sums"
}
procd_close_instance() { _log close_instance; }
procd_add_reload_trigger() { _log reload_trigger "$@"; }
procd_close_service() {
	local each name
	service_triggers
	_log close_service
	for each in "$_P"/run/*/; do
		[ -d "$each" ] || continue
		name=$(basename "$each")
		if [ ! -d "$_P/new/$name" ] || ! cmp -s "$each/command" "$_P/new/$name/command" ||
			! cmp -s "$each/sums" "$_P/new/$name/sums"; then
			_end "$name"
		fi
	done
	for each in "$_P"/new/*/; do
		[ -d "$each" ] || continue
		name=$(basename "$each")
		[ -d "$_P/run/$name" ] && continue
		mkdir -p "$_P/run"
		mv "$_P/new/$name" "$_P/run/$name"
		(
			# Who started the service waits for the end of its output.
			exec >/dev/null 2>&1 </dev/null
			_supervise "$_P/run/$name"
		) &
		echo $! >"$_P/run/$name/supervisor"
	done
}
procd_kill() {
	_log kill "$1"
	local each
	for each in "$_P"/run/*/; do
		[ -d "$each" ] && _end "$(basename "$each")"
	done
}
_end() {
	_log end "$1"
	local at="$_P/run/$1" pid
	kill "$(cat "$at/supervisor")" 2>/dev/null
	pid=$(cat "$at/process" 2>/dev/null)
	[ -n "$pid" ] && kill "$pid" 2>/dev/null
	[ -f "$at/pidfile" ] && rm -f "$(cat "$at/pidfile")"
	rm -rf "$at"
}
_supervise() {
	local at=$1 pause
	pause=$(sed -n 2p "$at/respawn")
	set --
	while IFS= read -r each; do set -- "$@" "$each"; done <"$at/command"
	while [ -d "$at" ]; do
		"$@" >>"$_P/output" 2>&1 &
		echo $! >"$at/process"
		[ -f "$at/pidfile" ] && echo $! >"$(cat "$at/pidfile")"
		wait $!
		_log ended "$(basename "$at")" $?
		[ -n "$pause" ] || return
		sleep "$pause"
	done
}
