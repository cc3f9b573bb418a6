# Stand-in: see README.md. config_load, config_get, config_get_bool, config_foreach for the text that
# /etc/config has: one word or '...' for each value.
config_load() {
	_cfg_sections=""
	_cfg_count=0
	_cfg_now=""
	local line
	while IFS= read -r line || [ -n "$line" ]; do
		line=$(echo "$line" | sed 's/^[[:space:]]*//; /^#/d')
		[ -n "$line" ] || continue
		eval "set -- $line"
		case "$1" in
		config)
			_cfg_count=$((_cfg_count + 1))
			_cfg_now=${3:-cfg$_cfg_count}
			_cfg_sections="$_cfg_sections $_cfg_now"
			eval "_cfg_${_cfg_now}_TYPE=\$2"
			;;
		option) eval "_cfg_${_cfg_now}_$2=\$3" ;;
		esac
	done <"/etc/config/$1"
}
config_get() { eval "$1=\${_cfg_${2}_$3:-\$4}"; }
config_get_bool() {
	local _value
	config_get _value "$2" "$3" "$4"
	case "$_value" in
	1 | on | true | yes | enabled) eval "$1=1" ;;
	0 | off | false | no | disabled) eval "$1=0" ;;
	*) eval "$1=\$4" ;;
	esac
}
config_foreach() {
	local _each _type
	for _each in $_cfg_sections; do
		eval "_type=\$_cfg_${_each}_TYPE"
		[ "$_type" = "$2" ] && "$1" "$_each"
	done
}
