/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/acpi.h"

#include "base/checked.h"
#include "os/err.h"
#include "vmm/aml.h"
#include "vmm/boot.h"
#include "vmm/generation.h"
#include "vmm/irqchip.h"
#include "vmm/mptable.h"
#include "vmm/platform.h"
#include "vmm/serial.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define OEM_ID "ROUX  "
#define OEM_TABLE_ID "ROUXVM  "

/* Places inside [BOOT_TABLES, BOOT_TABLES_END). */
#define AT_RSDP BOOT_TABLES
#define AT_XSDT (BOOT_TABLES + 0x100)
#define AT_FADT (BOOT_TABLES + 0x200)
#define AT_MADT (BOOT_TABLES + 0x400)
#define AT_DSDT (BOOT_TABLES + 0x1000)
#define DSDT_MAX 0xe000u	/* bytes */
_Static_assert(AT_DSDT + DSDT_MAX <= GENERATION_AT, "tables and the generation id are apart");

struct table_header {	/* ACPI 6.4, 5.2.6 */
	char signature[4];
	uint32_t length;
	uint8_t revision, checksum;
	char oem_id[6], oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
} __attribute__((packed));

struct rsdp {	/* 5.2.5.3 */
	char signature[8];
	uint8_t checksum;
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt;
	uint32_t length;
	uint64_t xsdt;
	uint8_t extended_checksum, reserved[3];
} __attribute__((packed));

struct xsdt {	/* 5.2.8 */
	struct table_header h;
	uint64_t entry[2];
} __attribute__((packed));

struct gas {	/* generic address structure, 5.2.3.2 */
	uint8_t space, bit_width, bit_offset, access_size;
	uint64_t address;
} __attribute__((packed));

struct fadt {	/* 5.2.9, what hardware-reduced ACPI leaves of it */
	struct table_header h;
	uint8_t unused1[109 - 36];
	uint16_t boot_arch;
	uint8_t reserved;
	uint32_t flags;
	struct gas reset_reg;
	uint8_t reset_value;
	uint16_t arm_boot_arch;
	uint8_t minor_version;
	uint64_t x_firmware_ctrl, x_dsdt;
	uint8_t unused2[244 - 148];
	struct gas sleep_control, sleep_status;
	uint64_t hypervisor_vendor;
} __attribute__((packed));
_Static_assert(offsetof(struct fadt, reset_reg) == 116, "ACPI 6.4, table 5.9");
_Static_assert(offsetof(struct fadt, sleep_control) == 244, "ACPI 6.4, table 5.9");
_Static_assert(sizeof(struct fadt) == 276, "ACPI 6.4, table 5.9");

#define FADT_FLAGS_WBINVD 1u
#define FADT_FLAGS_RESET_REG (1u << 10)
#define FADT_FLAGS_HW_REDUCED (1u << 20)
/* No VGA, no CMOS clock to be trusted, no 8042: what kernels need not look for. */
#define FADT_BOOT_NO_VGA (1u << 2)
#define FADT_BOOT_NO_RTC (1u << 5)

enum { GAS_SYSTEM_IO = 1, GAS_BYTE = 1 };

struct madt {	/* 5.2.12 */
	struct table_header h;
	uint32_t lapic_address, flags;
} __attribute__((packed));

struct madt_lapic {	/* 5.2.12.2 */
	uint8_t type, length, uid, apic_id;
	uint32_t flags;
} __attribute__((packed));

struct madt_ioapic {	/* 5.2.12.3 */
	uint8_t type, length, id, reserved;
	uint32_t address, gsi_base;
} __attribute__((packed));

struct madt_wakeup {	/* 5.2.12.19 */
	uint8_t type, length;
	uint16_t version;
	uint32_t reserved;
	uint64_t mailbox;
} __attribute__((packed));

enum { MADT_LAPIC = 0, MADT_IOAPIC = 1, MADT_WAKEUP = 16 };

static uint8_t checksum(const void *bytes, size_t len)
{
	const uint8_t *p = bytes;
	uint8_t sum = 0;

	while (len-- > 0)
		sum = (uint8_t)(sum + *p++);
	return (uint8_t)-sum;
}

static struct table_header header(const char *signature, uint8_t revision, size_t length)
{
	struct table_header h = { .length = (uint32_t)length, .revision = revision,
				  .oem_revision = 1, .creator_revision = 1 };

	memcpy(h.signature, signature, sizeof(h.signature));
	memcpy(h.oem_id, OEM_ID, sizeof(h.oem_id));
	memcpy(h.oem_table_id, OEM_TABLE_ID, sizeof(h.oem_table_id));
	memcpy(h.creator_id, "ROUX", sizeof(h.creator_id));
	return h;
}

/* Completes the checksum of a table of @len bytes and puts it at @gpa. */
static int put_table(struct mem *mem, gpa_t gpa, void *table, size_t len)
{
	struct table_header *h = table;

	h->length = (uint32_t)len;
	h->checksum = 0;
	h->checksum = checksum(table, len);
	return mem_write(mem, gpa, table, len);
}

static struct gas byte_port(uint64_t port)
{
	return (struct gas){ .space = GAS_SYSTEM_IO, .bit_width = 8, .access_size = GAS_BYTE,
			     .address = port };
}

static void add_com1(struct aml *aml)
{
	aml_mark dev = aml_device_open(aml, "COM1"), crs;

	aml_name_eisa_id(aml, "_HID", "PNP0501");
	aml_name_int(aml, "_UID", 0);
	crs = aml_crs_open(aml);
	aml_crs_io(aml, SERIAL_COM1_BASE, 8);
	aml_crs_interrupt(aml, SERIAL_COM1_IRQ, true);
	aml_crs_close(aml, crs);
	aml_close(aml, dev);
}

static void add_virtio(struct aml *aml, unsigned i, const struct acpi_device *d)
{
	aml_mark dev, crs;
	char name[8];

	(void)snprintf(name, sizeof(name), "VM%02X", i & 0xff);
	dev = aml_device_open(aml, name);
	aml_name_string(aml, "_HID", "LNRO0005");
	aml_name_int(aml, "_UID", i);
	aml_name_int(aml, "_CCA", 1);	/* its memory accesses are coherent */
	crs = aml_crs_open(aml);
	aml_crs_memory32(aml, d->base, d->size);
	aml_crs_interrupt(aml, d->gsi, d->edge);
	aml_crs_close(aml, crs);
	aml_close(aml, dev);
}

/*
 * The place of the VM's generation id ("Virtual Machine Generation ID", Microsoft, 2012), and the device (5.6.9) whose
 * interrupt says that it has changed: hardware-reduced ACPI has no general-purpose events.
 */
static void add_generation(struct aml *aml)
{
	static const uint64_t address[2] = { GENERATION_AT & 0xffffffff, GENERATION_AT >> 32 };
	aml_mark dev = aml_device_open(aml, "VGEN"), crs, method;

	aml_name_string(aml, "_HID", "ROUX0001");
	aml_name_string(aml, "_CID", "VM_Gen_Counter");
	aml_name_string(aml, "_DDN", "VM_Gen_Counter");
	aml_name_package(aml, "ADDR", address, 2);
	aml_close(aml, dev);

	dev = aml_device_open(aml, "GED0");
	aml_name_string(aml, "_HID", "ACPI0013");
	aml_name_int(aml, "_UID", 0);
	crs = aml_crs_open(aml);
	aml_crs_interrupt(aml, GENERATION_GSI, true);
	aml_crs_close(aml, crs);
	method = aml_method_open(aml, "_EVT", 1);
	aml_notify(aml, "VGEN", GENERATION_CHANGED);
	aml_close(aml, method);
	aml_close(aml, dev);
}

static int put_dsdt(struct mem *mem, const struct acpi_spec *spec, struct err *err)
{
	static const uint64_t s5[4] = { PLATFORM_SLEEP_TYPE_S5, 0, 0, 0 };
	uint8_t buf[DSDT_MAX];
	struct aml aml = { .buf = buf, .size = sizeof(buf), .used = sizeof(struct table_header) };
	struct table_header h = header("DSDT", 2, 0);
	aml_mark scope;

	memcpy(buf, &h, sizeof(h));
	aml_name_package(&aml, "\\_S5", s5, ARRAY_SIZE(s5));
	scope = aml_scope_open(&aml, "\\_SB");
	if (spec->com1)
		add_com1(&aml);
	if (spec->generation)
		add_generation(&aml);
	for (unsigned i = 0; i < spec->ndevices; i++)
		add_virtio(&aml, i, &spec->device[i]);
	aml_close(&aml, scope);
	if (aml.overflow)
		return err_set(err, -ENOSPC, "too many devices for the ACPI tables");
	return put_table(mem, AT_DSDT, buf, aml.used);
}

static int put_fadt(struct mem *mem)
{
	struct fadt fadt = {
		.h = header("FACP", 6, sizeof(fadt)),
		.boot_arch = FADT_BOOT_NO_VGA | FADT_BOOT_NO_RTC,
		.flags = FADT_FLAGS_WBINVD | FADT_FLAGS_RESET_REG | FADT_FLAGS_HW_REDUCED,
		.reset_reg = byte_port(PLATFORM_RESET_PORT),
		.reset_value = PLATFORM_RESET_VALUE,
		.minor_version = 4,
		.x_dsdt = AT_DSDT,
		.sleep_control = byte_port(PLATFORM_SLEEP_PORT),
		.sleep_status = byte_port(PLATFORM_SLEEP_PORT + 1),
	};

	memcpy(&fadt.hypervisor_vendor, "roux\0\0\0\0", 8);
	return put_table(mem, AT_FADT, &fadt, sizeof(fadt));
}

static int put_madt(struct mem *mem, const struct acpi_spec *spec)
{
	struct {
		struct madt madt;
		uint8_t entries[256];
	} __attribute__((packed)) t = {
		.madt = { .h = header("APIC", 5, 0), .lapic_address = LAPIC_MMIO_BASE },
	};
	const struct madt_ioapic ioapic = { .type = MADT_IOAPIC, .length = sizeof(ioapic),
					    .address = IOAPIC_MMIO_BASE };
	const struct madt_wakeup wakeup = { .type = MADT_WAKEUP, .length = sizeof(wakeup),
					    .mailbox = PLATFORM_MAILBOX };
	size_t used = 0;

	for (unsigned i = 0; i < spec->nvcpus; i++) {
		const struct madt_lapic lapic = { .type = MADT_LAPIC, .length = sizeof(lapic),
						  .uid = (uint8_t)i, .apic_id = (uint8_t)i,
						  .flags = 1 };

		memcpy(t.entries + used, &lapic, sizeof(lapic));
		used += sizeof(lapic);
	}
	memcpy(t.entries + used, &ioapic, sizeof(ioapic));
	used += sizeof(ioapic);
	if (spec->nvcpus > 1) {
		memcpy(t.entries + used, &wakeup, sizeof(wakeup));
		used += sizeof(wakeup);
	}
	return put_table(mem, AT_MADT, &t, sizeof(t.madt) + used);
}

static int put_roots(struct mem *mem)
{
	struct xsdt xsdt = { .h = header("XSDT", 1, sizeof(xsdt)), .entry = { AT_FADT, AT_MADT } };
	struct rsdp rsdp = { .revision = 2, .length = sizeof(rsdp), .xsdt = AT_XSDT };
	int r;

	memcpy(rsdp.signature, "RSD PTR ", 8);
	memcpy(rsdp.oem_id, OEM_ID, sizeof(rsdp.oem_id));
	rsdp.checksum = checksum(&rsdp, 20);	/* the ACPI 1.0 part */
	rsdp.extended_checksum = checksum(&rsdp, sizeof(rsdp));
	r = put_table(mem, AT_XSDT, &xsdt, sizeof(xsdt));
	return r < 0 ? r : mem_write(mem, AT_RSDP, &rsdp, sizeof(rsdp));
}

int acpi_build(struct mem *mem, const struct acpi_spec *spec, gpa_t *ret_rsdp, struct err *err)
{
	int r;

	if (spec->ndevices > ACPI_DEVICES_MAX)
		return err_set(err, -ENOSPC, "%u devices; at most %d fit", spec->ndevices,
			       ACPI_DEVICES_MAX);
	r = put_dsdt(mem, spec, err);
	if (r == 0)
		r = put_fadt(mem);
	if (r == 0)
		r = put_madt(mem, spec);
	if (r == 0)
		r = put_roots(mem);
	if (r == 0)
		r = mptable_build(mem, spec->nvcpus);
	if (r == -EFAULT)
		return err_set(err, r, "guest memory is too small for the ACPI tables");
	if (r == 0)
		*ret_rsdp = AT_RSDP;
	return r;
}
