/* SPDX-License-Identifier: Apache-2.0 */
/* What tools/light-link.sh puts in the place of libc's functions. */
#include "engine/dbt/run.h"

void *dbt_memcpy(void *dst, const void *src, size_t n);
void *dbt_memset(void *dst, int value, size_t n);
void *dbt_memmove(void *dst, const void *src, size_t n);

void *dbt_memcpy(void *dst, const void *src, size_t n)
{
	return copy_bytes(dst, src, n);
}

void *dbt_memset(void *dst, int value, size_t n)
{
	void *d = dst;

	__asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(value) : "memory");
	return dst;
}

void *dbt_memmove(void *dst, const void *src, size_t n)
{
	uint8_t *d = dst;
	const uint8_t *s = src;

	if (d <= s || d >= s + n)
		return copy_bytes(dst, src, n);
	while (n--)
		d[n] = s[n];
	return dst;
}
