/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/mptable.h"

#include "vmm/irqchip.h"

#include <string.h>

struct pointer {	/* 4.1 */
	char signature[4];
	uint32_t table;
	uint8_t length, revision, checksum, feature[5];
} __attribute__((packed));

struct table {	/* 4.2 */
	char signature[4];
	uint16_t length;
	uint8_t revision, checksum;
	char oem_id[8], product_id[12];
	uint32_t oem_table;
	uint16_t oem_size, entries;
	uint32_t lapic_address, extended;
} __attribute__((packed));

struct processor {	/* 4.3.1 */
	uint8_t type, apic_id, apic_version, flags;
	uint32_t signature, features, reserved[2];
} __attribute__((packed));

struct isa_bus {	/* 4.3.2 */
	uint8_t type, id;
	char name[6];
} __attribute__((packed));

struct ioapic {	/* 4.3.3 */
	uint8_t type, id, version, flags;
	uint32_t address;
} __attribute__((packed));

struct interrupt {	/* 4.3.4; local ones, 4.3.5, have the same form */
	uint8_t type, kind;
	uint16_t flags;
	uint8_t bus, source, apic_id, input;
} __attribute__((packed));

enum { ENTRY_PROCESSOR, ENTRY_BUS, ENTRY_IOAPIC, ENTRY_INTERRUPT, ENTRY_LOCAL_INTERRUPT };
enum { PROCESSOR_ENABLED = 1, PROCESSOR_BOOT = 2 };
enum { KIND_INT = 0, KIND_NMI = 1, KIND_EXTINT = 3 };
#define APIC_ALL 0xff

struct image {
	struct pointer pointer;
	struct table table;
	uint8_t entry[1024 - sizeof(struct pointer) - sizeof(struct table)];
} __attribute__((packed));
_Static_assert(sizeof(struct image) == 1024, "kernels search 1 KiB");

static void add(struct image *im, size_t *used, const void *entry, size_t len)
{
	memcpy(im->entry + *used, entry, len);
	*used += len;
	im->table.entries++;
}

static void add_interrupts(struct image *im, size_t *used, uint8_t ioapic_id)
{
	for (uint8_t pin = 0; pin < IOAPIC_PINS; pin++) {
		const struct interrupt irq = { .type = ENTRY_INTERRUPT, .kind = KIND_INT,
					       .source = pin, .apic_id = ioapic_id,
					       .input = pin };

		add(im, used, &irq, sizeof(irq));
	}
	add(im, used, &(struct interrupt){ .type = ENTRY_LOCAL_INTERRUPT, .kind = KIND_EXTINT,
					   .apic_id = APIC_ALL, .input = 0 },
	    sizeof(struct interrupt));
	add(im, used, &(struct interrupt){ .type = ENTRY_LOCAL_INTERRUPT, .kind = KIND_NMI,
					   .apic_id = APIC_ALL, .input = 1 },
	    sizeof(struct interrupt));
}

static uint8_t checksum(const void *bytes, size_t len)
{
	const uint8_t *p = bytes;
	uint8_t sum = 0;

	while (len-- > 0)
		sum = (uint8_t)(sum + *p++);
	return (uint8_t)-sum;
}

int mptable_build(struct mem *mem, unsigned nvcpus)
{
	struct image im = {
		.pointer = { .signature = { '_', 'M', 'P', '_' }, .length = 1, .revision = 4,
			     .table = MPTABLE_BASE + sizeof(struct pointer) },
		.table = { .signature = { 'P', 'C', 'M', 'P' }, .revision = 4,
			   .lapic_address = LAPIC_MMIO_BASE },
	};
	const uint8_t ioapic_id = (uint8_t)nvcpus;
	size_t used = 0;

	memcpy(im.table.oem_id, "ROUX    ", 8);
	memcpy(im.table.product_id, "ROUXVM      ", 12);
	for (uint8_t i = 0; i < nvcpus; i++) {
		const struct processor cpu = {
			.type = ENTRY_PROCESSOR, .apic_id = i, .apic_version = 0x14,
			.flags = PROCESSOR_ENABLED | (i == 0 ? PROCESSOR_BOOT : 0),
			.features = 1 << 9 | 1,	/* has an APIC, an FPU */
		};

		add(&im, &used, &cpu, sizeof(cpu));
	}
	add(&im, &used, &(struct isa_bus){ .type = ENTRY_BUS, .name = "ISA   " },
	    sizeof(struct isa_bus));
	add(&im, &used, &(struct ioapic){ .type = ENTRY_IOAPIC, .id = ioapic_id, .version = 0x11,
					  .flags = 1, .address = IOAPIC_MMIO_BASE },
	    sizeof(struct ioapic));
	add_interrupts(&im, &used, ioapic_id);
	im.table.length = (uint16_t)(sizeof(im.table) + used);
	im.table.checksum = checksum(&im.table, im.table.length);
	im.pointer.checksum = checksum(&im.pointer, sizeof(im.pointer));
	return mem_write(mem, MPTABLE_BASE, &im, sizeof(im));
}
