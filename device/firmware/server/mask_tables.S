/* glioslice/wire/mask_tables.bin, which docs/wire.md describes. The Makefile gives its path. */
    .section .rodata
    .global mask_tables
    .balign 4
mask_tables:
    .incbin MASK_TABLES
    .global mask_tables_end
mask_tables_end:
#if defined(__linux__)
    .section .note.GNU-stack,"",%progbits
#endif
