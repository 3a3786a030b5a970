/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is left out is left out because it takes time at every start, or memory in every
 * machine; docs/decisions/0012-kernels-built-for-machines.md has the figures.  Options
 * with "n" are on by default even in the smallest configuration.
 */
#include "build/kernel_config.h"

#include "os/err.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char base[] =
	/* The machine: vmm/cpuid.c, vmm/acpi.c.  It has no PCI, but ACPI does not start in a kernel without. */
	"64BIT EXPERT SMP NR_CPUS=8 HYPERVISOR_GUEST PARAVIRT KVM_GUEST X86_X2APIC ACPI PCI IO_DELAY_NONE "
	"LOCALVERSION=\"-roux\" DEFAULT_HOSTNAME=\"roux\" UNWINDER_GUESS INIT_STACK_NONE CC_OPTIMIZE_FOR_PERFORMANCE "
	"HZ_250 NO_HZ_IDLE HIGH_RES_TIMERS PREEMPT_NONE BLK_DEV_INITRD RD_GZIP=n "
	"PRINTK PRINTK_TIME LOG_BUF_SHIFT=16 BUG "
	/* Memory. */
	"SPARSEMEM_VMEMMAP SLUB SLUB_CPU_PARTIAL COMPACTION MIGRATION BALLOON_COMPACTION TRANSPARENT_HUGEPAGE TRANSPARENT_HUGEPAGE_ALWAYS "
	"SHMEM VM_EVENT_COUNTERS "
	/* System calls. */
	"MULTIUSER SYSVIPC POSIX_MQUEUE CROSS_MEMORY_ATTACH FHANDLE POSIX_TIMERS FUTEX EPOLL SIGNALFD TIMERFD EVENTFD AIO "
	"ADVISE_SYSCALLS MEMBARRIER RSEQ FILE_LOCKING INOTIFY_USER FANOTIFY KCMP BASE_FULL BINFMT_ELF BINFMT_SCRIPT "
	/* File systems: roots (shared folders, images), and those of the kernel itself. */
	"PROC_FS PROC_SYSCTL PROC_PAGE_MONITOR SYSFS TMPFS TMPFS_POSIX_ACL TMPFS_XATTR DEVTMPFS "
	"FUSE_FS VIRTIO_FS OVERLAY_FS MISC_FILESYSTEMS EROFS_FS EROFS_FS_XATTR EROFS_FS_POSIX_ACL EROFS_FS_SECURITY "
	/* Devices. */
	"TTY UNIX98_PTYS SERIAL_8250 SERIAL_8250_CONSOLE SERIAL_8250_NR_UARTS=1 SERIAL_8250_RUNTIME_UARTS=1 "
	"BLOCK BLK_DEV VIRTIO_MENU VIRTIO_MMIO VIRTIO_MMIO_CMDLINE_DEVICES VIRTIO_BLK VIRTIO_BALLOON "
	"HW_RANDOM HW_RANDOM_VIRTIO VIRT_DRIVERS VMGENID RANDOM_TRUST_CPU RANDOM_TRUST_BOOTLOADER "
	"NET UNIX VSOCKETS VIRTIO_VSOCKETS "
	"CRYPTO CRYPTO_CRC32C_INTEL ";

const struct kernel_feature kernel_features[] = {
	{ "net", "IPv4 and network devices", true, NULL,
	  "INET NETDEVICES NET_CORE VIRTIO_NET PACKET IP_MULTICAST INET_DIAG INET_DIAG_DESTROY UNIX_DIAG PACKET_DIAG ETHTOOL_NETLINK" },
	{ "ipv6", "IPv6", true, "net", "IPV6 IPV6_SIT=n" },
	{ "ext4", "ext4, ext3 and ext2", true, NULL,
	  "EXT4_FS EXT4_FS_POSIX_ACL EXT4_FS_SECURITY EXT4_USE_FOR_EXT2" },
	{ "squashfs", "SquashFS", true, NULL,
	  "SQUASHFS SQUASHFS_XATTR SQUASHFS_ZLIB SQUASHFS_LZ4 SQUASHFS_XZ SQUASHFS_ZSTD" },
	{ "loop", "files as disks", true, NULL, "BLK_DEV_LOOP BLK_DEV_LOOP_MIN_COUNT=0" },
	{ "erofs-zip", "compressed EROFS", true, NULL, "EROFS_FS_ZIP" },
	{ "cgroups", "control groups", true, NULL,
	  "CGROUPS MEMCG CGROUP_SCHED FAIR_GROUP_SCHED CFS_BANDWIDTH CGROUP_PIDS CGROUP_FREEZER CPUSETS CGROUP_CPUACCT" },
	{ "namespaces", "containers in the machine", true, NULL,
	  "NAMESPACES UTS_NS IPC_NS PID_NS NET_NS USER_NS TIME_NS" },
	{ "seccomp", "filters of system calls", true, NULL, "SECCOMP SECCOMP_FILTER" },
	{ "binfmt-misc", "interpreters for other formats of programs", true, NULL, "BINFMT_MISC" },
	{ "bpf", "the bpf system call", false, NULL, "BPF_SYSCALL" },
	{ "bridge", "bridges and pairs of network devices", false, "net", "BRIDGE VETH" },
	{ "coredump", "dumps of programs that crash", false, NULL, "COREDUMP" },
	{ "io-uring", "the io_uring system calls", false, NULL, "IO_URING" },
	{ "keys", "keyrings of the kernel", false, NULL, "KEYS" },
	{ "netfilter", "nftables, with address translation", false, "net",
	  "NETFILTER NETFILTER_ADVANCED NF_CONNTRACK NF_TABLES NF_TABLES_INET NF_TABLES_IPV4 NF_NAT NFT_CT NFT_NAT NFT_MASQ "
	  "NFT_REJECT NFT_LOG NFT_LIMIT NFT_COMPAT NETFILTER_XTABLES NETFILTER_XT_MATCH_CONNTRACK NETFILTER_XT_MATCH_ADDRTYPE "
	  "NETFILTER_XT_TARGET_MASQUERADE" },
	{ "symbols", "names of the kernel's functions in its messages", false, NULL, "KALLSYMS" },
	{ "tun", "network devices made by programs", false, "net", "TUN" },
	{ "userfaultfd", "page faults served by programs", false, NULL, "USERFAULTFD" },
	{ "vfat", "FAT file systems", false, NULL, "VFAT_FS NLS_CODEPAGE_437 NLS_ISO8859_1 NLS_UTF8" },
	{ "xfs", "XFS", false, NULL, "XFS_FS XFS_POSIX_ACL" },
	{ NULL, NULL, false, NULL, NULL },
};

#define FEATURES_MAX 64 /* one bit each */
_Static_assert(sizeof(kernel_features) / sizeof(kernel_features[0]) <= FEATURES_MAX, "fits in a word");

static int index_of(const char *name, size_t len)
{
	for (int i = 0; kernel_features[i].name; i++)
		if (strlen(kernel_features[i].name) == len && memcmp(kernel_features[i].name, name, len) == 0)
			return i;
	return -1;
}

/* What @name stands for; 0: unknown. */
static uint64_t set_of(const char *name, size_t len)
{
	bool all = len == 3 && memcmp(name, "all", 3) == 0;
	bool defaults = len == 7 && memcmp(name, "default", 7) == 0;
	int at = index_of(name, len);
	uint64_t set = at >= 0 ? 1ull << at : 0;

	for (int i = 0; kernel_features[i].name; i++)
		if (all || (defaults && kernel_features[i].on))
			set |= 1ull << i;
	return set;
}

static int choose(const char *features, uint64_t *ret_set, struct err *err)
{
	uint64_t set = 0;
	size_t len;

	for (const char *at = features; *at; at += len + (at[len] == ',')) {
		bool off = *at == '-';
		uint64_t named;

		at += off;
		len = strcspn(at, ",");
		named = set_of(at, len);
		if (!named)
			return err_set(err, -EINVAL, "there is no feature '%.*s'; 'roux kernel build --help' lists them",
				       len > 64 ? 64 : (int)len, at);
		set = off ? set & ~named : set | named;
	}
	for (int i = 0; kernel_features[i].name; i++) {
		const char *needs = kernel_features[i].needs;

		if ((set >> i & 1) && needs && !(set >> index_of(needs, strlen(needs)) & 1))
			return err_set(err, -EINVAL, "the feature '%s' needs '%s'", kernel_features[i].name, needs);
	}
	*ret_set = set;
	return 0;
}

static void put_options(FILE *out, const char *options)
{
	size_t len;

	for (const char *at = options; *at; at += len) {
		at += strspn(at, " ");
		len = strcspn(at, " ");
		if (len)
			(void)fprintf(out, "CONFIG_%.*s%s\n", (int)len, at, memchr(at, '=', len) ? "" : "=y");
	}
}

int kernel_config_make(const char *features, char **ret_config, char **ret_features, struct err *err)
{
	char *config = NULL, *names = NULL;
	size_t config_len, names_len;
	FILE *c, *n;
	uint64_t set = 0;
	bool bad;
	int r = choose(features ? features : "default", &set, err);

	if (r < 0)
		return r;
	c = open_memstream(&config, &config_len);
	n = open_memstream(&names, &names_len);
	if (c)
		put_options(c, base);
	for (int i = 0; c && n && kernel_features[i].name; i++)
		if (set >> i & 1) {
			put_options(c, kernel_features[i].options);
			(void)fprintf(n, "%s%s", ftell(n) > 0 ? "," : "", kernel_features[i].name);
		}
	bad = !c || fclose(c) != 0;
	bad = !n || fclose(n) != 0 || bad;
	if (bad) {
		free(config);
		free(names);
		return err_set(err, -ENOMEM, "out of memory");
	}
	*ret_config = config;
	*ret_features = names;
	return 0;
}

/* Whether @text has a line that is the @len bytes at @line. */
static bool has_line(const char *text, const char *line, size_t len)
{
	for (const char *at = text; at; at = strchr(at, '\n'), at = at ? at + 1 : NULL)
		if (strncmp(at, line, len) == 0 && (at[len] == '\n' || at[len] == '\0'))
			return true;
	return false;
}

const char *kernel_config_missing(const char *wanted, const char *got)
{
	for (const char *at = wanted; *at; at += strcspn(at, "\n"), at += *at == '\n') {
		size_t len = strcspn(at, "\n");
		bool off = len > 2 && memcmp(at + len - 2, "=n", 2) == 0;

		/* What is off may also be unheard of. */
		if (len && !off && !has_line(got, at, len))
			return at;
	}
	return NULL;
}
