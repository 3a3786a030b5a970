/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of the initramfs that the host writes and roux's init reads.
 *
 * /roux.conf is text, one key=value a line, "#" starts a comment line:
 *
 *   root=initramfs               stay in the initramfs (default)
 *   root=virtiofs:TAG            shared folder
 *   root=blk:DEVICE:FSTYPE       e.g. blk:/dev/vda:ext4
 *   overlay=tmpfs|none           writes go to memory over the root (default none)
 *   overlay_size=SIZE            limit of that memory as tmpfs's size=, e.g. 50%
 *   readonly=yes|no              the finished root is read-only (default no)
 *   mount=TYPE:rw|ro:SOURCE:TARGET
 *                                more mounts, in order; up to GUEST_CONF_MOUNTS_MAX.
 *                                TYPE is virtiofs (SOURCE = tag), tmpfs (SOURCE =
 *                                options or empty) or bind.  TARGET is absolute,
 *                                made when missing, and may contain colons.
 *   hostname=NAME                default "roux"
 *   clock=SECONDS[.NANOSECONDS]  set the wall clock to this at start
 *   console=quiet|ready          ready: print GUEST_READY_LINE when serving (default quiet)
 *   transport=vsock|vport        vport: serve on every /dev/vport* instead (default vsock)
 *   address=INTERFACE:ADDRESS/PREFIX
 *                                raises the interface with this address; any number
 *                                up to GUEST_CONF_ADDRESSES_MAX, IPv4 and IPv6;
 *                                one that gets no link-local one makes its own of the
 *                                MAC address
 *   interface=INTERFACE          raises it without one: addresses come with AGENT_IDENTITY
 *   gateway=ADDRESS              default route, one each for IPv4 and IPv6
 *   nameserver=ADDRESS           lines of /etc/resolv.conf
 *   search=DOMAIN[ DOMAIN...]    likewise
 *   host=NAME:ADDRESS            a line of /etc/hosts
 *
 * Keys that are not known end the boot with a message: a typing error must not
 * silently give a machine other than the one asked for.
 *
 * /modules/order lists kernel modules, one file name in /modules a line, in the
 * order to load; one that the kernel has already is no error.
 */
#ifndef ABI_GUEST_CONF_H
#define ABI_GUEST_CONF_H

#define GUEST_CONF_PATH "/roux.conf"
#define GUEST_CONF_SIZE_MAX 16384 /* bytes */
#define GUEST_CONF_MOUNTS_MAX 64
#define GUEST_CONF_ADDRESSES_MAX 16
#define GUEST_CONF_GATEWAYS_MAX 2
#define GUEST_CONF_NAMESERVERS_MAX 3 /* more are not used by anybody */
#define GUEST_CONF_HOSTS_MAX 32
#define GUEST_MODULES_DIR "/modules"
#define GUEST_MODULES_ORDER "/modules/order"
#define GUEST_READY_LINE "roux: ready\n"

#endif /* ABI_GUEST_CONF_H */
