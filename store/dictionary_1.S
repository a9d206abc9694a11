/* The dictionary's bytes: see dictionary.h. */
    .section .rodata
    .global dictionary_1, dictionary_1_end
    .hidden dictionary_1, dictionary_1_end
    .balign 16
dictionary_1:
    .incbin "store/dictionary-1.zdict"
dictionary_1_end:

    .section .note.GNU-stack, "", %progbits
