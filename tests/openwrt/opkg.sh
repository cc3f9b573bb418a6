#!/bin/sh
# Stand-in for opkg: `opkg install [OPTIONS] FILE.ipk` as its documentation has it. Unpacks, keeps a
# configuration file that is there already, runs postinst; says no more than opkg does.
[ "$1" = install ] || { echo "opkg: unknown sub-command $1" >&2; exit 255; }
for package in "$@"; do :; done
echo "$*" >>/var/run/opkg.log
work=/tmp/opkg.$$
mkdir -p "$work/data" "$work/control"
tar xzf "$package" -C "$work" && tar xzf "$work/data.tar.gz" -C "$work/data" &&
	tar xzf "$work/control.tar.gz" -C "$work/control" || {
	echo " * opkg_install_cmd: Cannot install package $package." >&2
	exit 255
}
while read -r name; do
	[ -e "$name" ] && rm -f "$work/data$name"
done <"$work/control/conffiles"
cp -a "$work/data/." / && "$work/control/postinst" configure
status=$?
rm -rf "$work"
exit $status
